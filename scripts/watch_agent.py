"""`air-env watch` as a script."""

from air_agents.commands.watch import main

if __name__ == "__main__":
    raise SystemExit(main())
