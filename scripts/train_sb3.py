"""`air-env train-sb3` as a script."""

from air_agents.commands.train_sb3 import main

if __name__ == "__main__":
    raise SystemExit(main())
