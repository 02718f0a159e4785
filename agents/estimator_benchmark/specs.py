"""Estimators as the command line names them: ``rloo``, or ``mine=path.py:MyEstimator`` for a class of one's own."""

import hashlib
from pathlib import Path

from air_env.registry import Registry

from ..estimators import ESTIMATORS, Estimator


def load_estimator(spec: str) -> str:
    """Registers the estimator of a specification in this process, where that is not done yet.

    Args:
        spec: ``name`` of a registered estimator, or ``name=path.py:ClassName``.

    Returns:
        Its name in `ESTIMATORS`.

    Raises:
        ValueError: There is no such estimator, or the name is taken.
    """
    name = spec.partition("=")[0]
    if not name.isidentifier() or (name != spec and ".py:" not in spec):
        raise ValueError(
            f"estimator {spec!r} makes no sense; give a registered name (one of {', '.join(ESTIMATORS.names())}), or "
            "name=path.py:ClassName for a class of your own"
        )
    if name == spec:
        ESTIMATORS.find(spec)
        return name
    # A registry of its own: the registered name is the short one.
    found = Registry[type[Estimator]]("estimator").find(spec)
    if not (isinstance(found, type) and issubclass(found, Estimator)):
        raise ValueError(f"estimator {spec!r} is no estimator; derive it from air_agents.estimators.Estimator")
    if ESTIMATORS.setdefault(name, found) is not found:
        raise ValueError(f"estimator {name!r} is already registered; give {spec.partition('=')[2]} another name")
    return name


def absolute(spec: str) -> str:
    """The specification with an absolute path, for processes that work elsewhere."""
    name, given, place = spec.partition("=")
    file, _, attribute = place.rpartition(":")
    return f"{name}={Path(file).expanduser().resolve()}:{attribute}" if given else name


def fingerprint(spec: str) -> str:
    """A hash of the code, so that a change of it is seen; empty for a registered estimator."""
    file, _, attribute = absolute(spec).partition("=")[2].rpartition(":")
    return hashlib.sha256(Path(file).read_bytes() + attribute.encode()).hexdigest()[:16] if file else ""
