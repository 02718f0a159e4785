"""`air-env benchmark-estimators` as a script."""

import sys

from air_agents.commands.benchmark_estimators import main

if __name__ == "__main__":
    sys.exit(main())
