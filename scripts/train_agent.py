"""`air-env train` as a script."""

import sys

from air_agents.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
