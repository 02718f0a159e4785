"""`air-env benchmark-speed` as a script."""

from air_agents.commands.benchmark_speed import main

if __name__ == "__main__":
    raise SystemExit(main())
