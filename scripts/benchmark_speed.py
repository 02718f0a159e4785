"""`air-env benchmark-speed` as a script."""

import sys

from air_agents.commands.benchmark_speed import main

if __name__ == "__main__":
    sys.exit(main())
