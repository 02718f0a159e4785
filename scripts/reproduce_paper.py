"""`air-env reproduce` as a script."""

from air_agents.commands.reproduce import main

if __name__ == "__main__":
    raise SystemExit(main())
