"""Asks pip whether the lower bounds of pyproject.toml can be installed together; installs nothing.

    python .ci/lower_bounds.py

torch is left out, whose wheels are large: the one that is installed satisfies those that need it.
"""

import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
LEFT_OUT = {"torch", PROJECT["name"]}


def lowest(requirement: str) -> tuple[str, str]:
    """The name of a requirement, and ``name==bound``."""
    found = re.match(r"([\w.-]+)(?:\[.*\])?(?:.*>=([\w.]+))?", requirement)
    if found is None or (found[2] is None and found[1] not in LEFT_OUT):
        sys.exit(f"{requirement!r} has no lower bound; give it one, as in 'name>=1.2'")
    return found[1], f"{found[1]}=={found[2]}"


def main() -> None:
    """The check."""
    bounds = dict(map(lowest, chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())))
    pinned = sorted(pin for name, pin in bounds.items() if name not in LEFT_OUT)
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--only-binary=:all:", *pinned]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"the lower bounds cannot be installed together:\n{result.stderr}")
    if yanked := re.findall(r"yanked version: '([\w.-]+)' candidate \(version ([\w.]+)", result.stderr):
        sys.exit(f"raise the lower bounds that were withdrawn: {', '.join(map(' '.join, yanked))}")
    print("can be installed together:", *pinned)


if __name__ == "__main__":
    main()
