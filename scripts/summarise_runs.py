"""`air-env summarise` as a script."""

import sys

from air_agents.commands.summarise import main

if __name__ == "__main__":
    sys.exit(main())
