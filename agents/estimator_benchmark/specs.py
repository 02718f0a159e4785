"""Estimators as the command line names them: ``rloo``, or ``mine=path.py:MyEstimator`` for a class of one's own."""

import hashlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

from ..estimators import ESTIMATORS, Estimator


@dataclass(frozen=True)
class Spec:
    """Where an estimator comes from."""

    name: str
    """In `ESTIMATORS`; a registered one's, or a new name."""
    file: Path | None = None
    """Absolute path of the Python file that defines it; None for a registered estimator."""
    class_name: str = ""
    """In the file."""

    @classmethod
    def parse(cls, text: str) -> "Spec":
        """Reads ``name`` or ``name=path.py:ClassName``.

        Raises:
            ValueError: It is neither, or the name makes no folder's name.
        """
        name, given, place = text.partition("=")
        file, _, class_name = place.rpartition(":")
        if not name.isidentifier() or (given and not (file and class_name.isidentifier())):
            raise ValueError(
                f"estimator {text!r} makes no sense; give a registered name (one of {', '.join(ESTIMATORS)}), or "
                "name=path.py:ClassName for a class of your own"
            )
        return cls(name, Path(file).expanduser().resolve(), class_name) if given else cls(name)

    def __str__(self) -> str:
        return self.name if self.file is None else f"{self.name}={self.file}:{self.class_name}"

    def fingerprint(self) -> str:
        """Of the code, so that a change of it is seen; empty for a registered estimator."""
        code = b"" if self.file is None else self.file.read_bytes() + self.class_name.encode()
        return hashlib.sha256(code).hexdigest()[:16] if code else ""

    def load(self) -> None:
        """Sees to it that the estimator is in `ESTIMATORS` of this process.

        Raises:
            ValueError: There is none of this name; the file cannot be imported or defines no such estimator; or the
                name is another estimator's.
        """
        if self.file is None:
            if self.name not in ESTIMATORS:
                raise ValueError(
                    f"estimator {self.name!r} is unknown; choose one of {', '.join(ESTIMATORS)}, or give a class of "
                    "your own as name=path.py:ClassName"
                )
        elif self.name not in ESTIMATORS:
            ESTIMATORS[self.name] = self._import(self.file)
            _LOADED[self.name] = self
        elif _LOADED.get(self.name) != self:
            raise ValueError(f"estimator {self.name!r} is already registered; give {self.file} another name")

    def _import(self, file: Path) -> type[Estimator]:
        if not file.is_file():
            raise ValueError(f"estimator {self.name!r}: there is no file {file}; check the path")
        # A name that no other module has; dataclasses and pickle look modules up by it.
        module_name = f"_estimator_{self.name}"
        source = importlib.util.spec_from_file_location(module_name, file)
        if source is None or source.loader is None:
            raise ValueError(f"estimator {self.name!r}: {file} is no Python file; its name must end in .py")
        module = sys.modules[module_name] = importlib.util.module_from_spec(source)
        try:
            source.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise ValueError(f"estimator {self.name!r}: {file} cannot be imported ({error!r}); correct it") from error
        found = getattr(module, self.class_name, None)
        if found is None:
            raise ValueError(f"estimator {self.name!r}: {file} defines no {self.class_name}; check the name")
        if not (isinstance(found, type) and issubclass(found, Estimator)):
            raise ValueError(
                f"estimator {self.name!r}: {self.class_name} in {file} is no estimator; derive it from "
                "air_agents.estimators.Estimator"
            )
        return found


_LOADED: dict[str, Spec] = {}


def load_estimator(text: str) -> str:
    """Registers the estimator of a specification in this process, where that is not done yet.

    Args:
        text: ``name`` of a registered estimator, or ``name=path.py:ClassName``.

    Returns:
        Its name in `ESTIMATORS`.

    Raises:
        ValueError: There is no such estimator, or the name is taken.
    """
    spec = Spec.parse(text)
    spec.load()
    return spec.name
