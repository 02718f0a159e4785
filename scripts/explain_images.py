"""`air-env explain` as a script."""

import sys

from air_agents.commands.explain import main

if __name__ == "__main__":
    sys.exit(main())
