"""`air-env reproduce` as a script."""

import sys

from air_agents.commands.reproduce import main

if __name__ == "__main__":
    sys.exit(main())
