"""`air-env benchmark-estimators` as a script."""

from air_agents.commands.benchmark_estimators import main

if __name__ == "__main__":
    raise SystemExit(main())
