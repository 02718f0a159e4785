"""`air-env summarise` as a script."""

from air_agents.commands.summarise import main

if __name__ == "__main__":
    raise SystemExit(main())
