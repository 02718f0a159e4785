"""`air-env watch` as a script."""

import sys

from air_agents.commands.watch import main

if __name__ == "__main__":
    sys.exit(main())
