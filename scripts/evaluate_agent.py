"""`air-env evaluate` as a script."""

import sys

from air_agents.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
