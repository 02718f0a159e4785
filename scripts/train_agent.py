"""`air-env train` as a script."""

from air_agents.commands.train import main

if __name__ == "__main__":
    raise SystemExit(main())
