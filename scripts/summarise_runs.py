"""`air-env summarise` as a script."""

import sys

from air_agents.commands.main import main

if __name__ == "__main__":
    sys.argv.insert(1, "summarise")
    raise SystemExit(main())
