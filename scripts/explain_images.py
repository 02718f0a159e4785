"""`air-env explain` as a script."""

from air_agents.commands.explain import main

if __name__ == "__main__":
    raise SystemExit(main())
