"""Reads finished runs: settings, metrics over training, final metrics."""

import re
from dataclasses import dataclass
from pathlib import Path

from .directory import CONFIG_FILE, EVALUATION_FILE, METRICS_FILE
from .files import read_json, read_rows
from .settings import Options


@dataclass(frozen=True)
class Finished:
    """A finished run, of `train_agent.py` or of `train_sb3.py`.

    Attributes:
        config: Its recipe or settings.
        metrics: Of the finished agent, and the training images that it saw; None where undefined.
        rows: Of the course of training; a short run has none.
    """

    config: Options
    metrics: dict[str, float | None]
    rows: list[dict[str, float]]

    @property
    def label(self) -> str:
        """What was trained, without the seed."""
        categories = ", exact categories" if self.config.get("categories") == "exact" else ""
        core = self.config.get("agent", {}).get("core", "air")
        kind = ", DAIR" if core == "dair" else ""
        return f"{self.config['scene']}{kind}, {self.config.get('algorithm') or self.config['estimator']}{categories}"

    @property
    def images(self) -> list[float]:
        """Training images seen until each row."""
        return [row["images"] if "images" in row else row["iteration"] * self.config["batch_size"] for row in self.rows]


def read_run(directory: Path) -> Finished:
    """Reads what a finished run left.

    Raises:
        FileNotFoundError: The directory holds no finished run.
        ValueError: Its files are damaged.
    """
    try:
        # Older files call the share of scenes with i objects that is counted right by the name of a confusion.
        written = read_json(directory / EVALUATION_FILE).items()
        metrics = {re.sub(r"^confusion_(\d+)_\1$", r"count_accuracy_\1", name): value for name, value in written}
        config = read_json(directory / CONFIG_FILE)
        if "images" not in metrics:
            metrics["images"] = metrics["iterations"] * config["batch_size"]
        wanted = {EVALUATION_FILE: (metrics, "count_accuracy", "minutes"), CONFIG_FILE: (config, "scene", "seed")}
        for file, (found, *names) in wanted.items():
            if missing := [name for name in names if name not in found]:
                why = ": its images have no truth" if "explained" in found else ""
                raise ValueError(f"{', '.join(missing)} not in {file}{why}")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{directory} holds no finished run ({Path(error.filename).name} is missing); finish it with "
            "train_agent.py --resume"
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"the results in {directory} are damaged or not a run's ({error})") from error
    return Finished(config, metrics, read_rows(directory / METRICS_FILE))
