"""`air-env inspect` as a script."""

import sys

from air_agents.commands.main import main

if __name__ == "__main__":
    sys.argv.insert(1, "inspect")
    raise SystemExit(main())
