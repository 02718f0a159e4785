"""`air-env evaluate` as a script."""

from air_agents.commands.evaluate import main

if __name__ == "__main__":
    raise SystemExit(main())
