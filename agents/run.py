"""A training run and its directory.

    config.json           the recipe
    metrics.csv           one row per evaluation, with what a probe adds; also in tensorboard/
    agent.safetensors     the agent (`load_agent`)
    evaluation.json       the finished agent on held-out scenes
    resume.pt             everything the next iteration depends on
    pictures/             scenes with windows beside reconstructions at stages of training; the curve

A directory appears whole, with a loadable agent in it, and every file in it is replaced atomically, so
that a run killed at any moment can be used and resumed.
"""

import csv
import json
import math
import os
import pickle
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

from agents.air import AIR, Exploration
from agents.checkpoints import AGENT_FILE, from_json, save_agent, write_atomically, write_text_atomically
from agents.evaluation import count_accuracy, evaluate
from agents.pictures import count_accuracy_curve, scenes_beside_reconstructions
from agents.recipes import Recipe
from agents.trainer import Trainer
from air_env.scenes import make_scene

CONFIG_FILE, METRICS_FILE, EVALUATION_FILE, RESUME_FILE = "config.json", "metrics.csv", "evaluation.json", "resume.pt"
FIELDS: tuple[str, ...] = ("iteration", "minutes", "elbo", "count_accuracy", "learning_rate")
_SAVE_EVERY_SECONDS = 30.0
_NUM_TEST, _NUM_FINAL = 1_000, 5_000
_NUM_PICTURED = 12

Progress = Callable[[dict[str, float]], None]
Probe = Callable[[Trainer], dict[str, float]]
"""Looks at a training at every evaluation, and gives further columns for metrics.csv."""


class Run:
    """A training run in its directory; use `start` or `resume`.

    Args:
        directory: The run directory, which exists.
        recipe: What to compute.
        data_dir: Folder of the data files, for scenes that need some.
        device: Where to compute.
        max_minutes: Budget of the whole run; where it is the tighter one, the learning rate follows it.
        probe: Gives further columns of metrics; its time is not counted as training.
    """

    def __init__(
        self,
        directory: Path,
        recipe: Recipe,
        data_dir: str | None,
        device: torch.device | str,
        max_minutes: float | None,
        probe: Probe | None = None,
    ) -> None:
        if max_minutes is not None and not max_minutes > 0:
            raise ValueError(f"max_minutes must be positive, got {max_minutes}")
        self.directory = directory
        self.recipe = recipe
        self.max_minutes = max_minutes
        self._scene = make_scene(recipe.scene, data_dir=data_dir, **recipe.scene_options)
        self._test = self._scene.dataset("test", _NUM_TEST, recipe.seed)
        self.trainer = Trainer(recipe, self._scene.dataset("train", recipe.num_train, recipe.seed), device)
        self.minutes = 0.0
        self._probe = probe
        self._rows: list[dict[str, float]] = []
        # Of the iterations since the last evaluation; summed on the device, which nothing waits for.
        self._elbo_sum = torch.zeros((), device=self.trainer.device)

    @classmethod
    def start(
        cls,
        directory: Path,
        recipe: Recipe,
        *,
        data_dir: str | None = None,
        device: torch.device | str = "cpu",
        max_minutes: float | None = None,
        probe: Probe | None = None,
    ) -> "Run":
        """Makes a run directory, with an untrained agent in it.

        Raises:
            ValueError: The budget is not positive, or the directory is the working directory.
            FileExistsError: The directory holds something already.
            OSError: It cannot be written.
        """
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise FileExistsError(
                f"{directory} already holds {'a run' if (directory / CONFIG_FILE).exists() else 'something'}; "
                "continue it with --resume, or choose another --output-dir"
            )
        if directory.resolve() == Path.cwd():
            # The directory is replaced by a whole one, and whoever works in it would be nowhere.
            raise ValueError(f"{directory} is the folder you are in; name one to be made in it with --output-dir")
        nascent = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
        run = cls(nascent, recipe, data_dir, device, max_minutes, probe)
        try:
            (nascent / "pictures").mkdir(parents=True)
            text = json.dumps(asdict(recipe), indent=2) + "\n"
            write_text_atomically(nascent / CONFIG_FILE, text)
            run.save()
            nascent.rename(directory)
        except OSError as error:
            shutil.rmtree(nascent, ignore_errors=True)
            raise OSError(
                f"could not make the run directory {directory} ({error}); choose another --output-dir"
            ) from error
        run.directory = directory
        return run

    @classmethod
    def resume(
        cls,
        directory: Path,
        *,
        data_dir: str | None = None,
        device: torch.device | str | None = None,
        max_minutes: float | None = None,
        probe: Probe | None = None,
    ) -> "Run":
        """Continues a run from its last checkpoint.

        Args:
            directory: The run directory.
            data_dir: Folder of the data files, for scenes that need some.
            device: One of the type that it was trained on; by default such a one.
            max_minutes: Budget of the whole run; by default the one it has.
            probe: Gives further columns of metrics.

        Raises:
            FileNotFoundError: The directory holds no run.
            ValueError: Its files are damaged, or it was trained on another type of device.
        """
        damaged = f"the run in {directory} cannot be resumed: its files are damaged or not a run's"
        try:
            recipe = from_json(Recipe, json.loads((directory / CONFIG_FILE).read_text()))
            state = torch.load(directory / RESUME_FILE, map_location="cpu", weights_only=True)
            trained_on, budget = state["device"], state["max_minutes"]
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{directory} holds no run to resume ({error.filename} is missing)") from error
        except pickle.UnpicklingError as error:
            # Torch's own message explains how to run what the file may hold.
            raise ValueError(f"{damaged} ({RESUME_FILE} is no checkpoint)") from error
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{damaged} ({RESUME_FILE} does not fit: {error!r})") from error
        except (ValueError, RuntimeError, EOFError, OSError) as error:
            raise ValueError(f"{damaged} ({error})") from error
        device = torch.device(trained_on if device is None else device)
        if device.type != trained_on or (trained_on == "cuda" and not torch.cuda.is_available()):
            raise ValueError(
                f"the run in {directory} was trained on {trained_on}, and its noise goes on only there: resume it with "
                f"--device {trained_on}, where there is one (its agent can be used anywhere)"
            )
        run = cls(directory, recipe, data_dir, device, budget if max_minutes is None else max_minutes, probe)
        try:
            run.trainer.load_state_dict(state["trainer"])
            run.minutes, run._rows, run._elbo_sum = state["minutes"], state["rows"], state["elbo_sum"].to(device)
        except (KeyError, TypeError, IndexError, AttributeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{damaged} ({RESUME_FILE} does not fit: {error!r})") from error
        return run

    def train(
        self,
        *,
        stop_at: int | None = None,
        interrupted: Callable[[], bool] = lambda: False,
        progress: Progress | None = None,
    ) -> None:
        """Trains until the recipe's iterations or the minutes are used up, whichever comes first.

        Args:
            stop_at: Stops at this iteration, as an interruption would.
            interrupted: Whether to stop, asked between iterations.
            progress: Called with the latest row of metrics after every iteration.
        """
        trainer, begun, saved = self.trainer, time.monotonic() - 60 * self.minutes, time.monotonic()
        last = min(self.recipe.max_steps, stop_at or self.recipe.max_steps)
        budget = 60 * self.max_minutes if self.max_minutes else float("inf")
        with SummaryWriter(self.directory / "tensorboard", purge_step=trainer.iteration) as tensorboard:
            if trainer.iteration == 0:
                self._picture()
            while trainer.iteration < last and (elapsed := time.monotonic() - begun) < budget and not interrupted():
                share = max(trainer.iteration / self.recipe.max_steps, elapsed / budget)
                self._elbo_sum += trainer.step(share)
                if trainer.iteration % self.recipe.evaluate_every == 0:
                    self.minutes = (time.monotonic() - begun) / 60
                    begun += self._log(self._elbo_sum.item() / self.recipe.evaluate_every, tensorboard)
                    self._elbo_sum.zero_()
                    if time.monotonic() - saved > _SAVE_EVERY_SECONDS:
                        self.save()
                        saved = time.monotonic()
                if progress is not None:
                    progress(self._rows[-1] if self._rows else {})
            self.minutes = (time.monotonic() - begun) / 60
            self.save()

    def save(self) -> None:
        """Saves the agent and the state to resume from.

        Raises:
            FloatingPointError: Training has diverged; the last checkpoint stays.
            OSError: They cannot be written; the last checkpoint stays.
        """
        self._check_finite()
        state = {
            "trainer": self.trainer.state_dict(),
            "device": self.trainer.device.type,
            "max_minutes": self.max_minutes,
            "minutes": self.minutes,
            "rows": self._rows,
            "elbo_sum": self._elbo_sum,
        }
        write_atomically(self.directory / RESUME_FILE, lambda path: torch.save(state, path))
        save_agent(self.trainer.agent, self.directory / AGENT_FILE, self.recipe)

    def _check_finite(self) -> None:
        parameters = all(parameter.isfinite().all() for parameter in self.trainer.agent.parameters())
        if not parameters or not self._elbo_sum.isfinite():
            raise FloatingPointError(
                f"the ELBO or a weight is not finite at iteration {self.trainer.iteration} with estimator "
                f"{self.recipe.estimator}: training diverged; lower --learning-rate. The last checkpoint in "
                f"{self.directory} is good"
            )

    def _log(self, elbo: float, tensorboard: SummaryWriter) -> float:
        """Evaluates on held-out scenes and writes a row of metrics; returns the seconds that the probe took."""
        trainer = self.trainer
        self._check_finite()
        with self._without_exploration() as agent:
            accuracy = count_accuracy(agent, self._test)
        row = {
            "iteration": trainer.iteration,
            "minutes": round(self.minutes, 3),
            "elbo": elbo,
            "count_accuracy": accuracy,
            "learning_rate": trainer.optimizer.param_groups[0]["lr"],
        }
        probing = 0.0
        if self._probe is not None:
            begun = time.monotonic()
            # Plain numbers: nothing else can be read back from a checkpoint.
            row |= {name: float(value) for name, value in self._probe(trainer).items()}
            probing = time.monotonic() - begun
        self._rows.append(row)
        for name in list(row)[2:]:
            tensorboard.add_scalar(name, row[name], trainer.iteration)
        write_atomically(self.directory / METRICS_FILE, self._write_rows)
        # At the 1st, 2nd, 4th, 8th, ... evaluation.
        if (trainer.iteration // self.recipe.evaluate_every).bit_count() == 1:
            self._picture()
        return probing

    @contextmanager
    def _without_exploration(self) -> Iterator[AIR]:
        """The agent as it is when it is loaded, for as long as it is looked at."""
        agent = self.trainer.agent
        exploration, agent.exploration = agent.exploration, Exploration()
        try:
            yield agent
        finally:
            agent.exploration = exploration

    def _write_rows(self, path: Path) -> None:
        with path.open("w", newline="") as file:
            # Rows from before there was a probe have fewer columns.
            writer = csv.DictWriter(file, list(dict.fromkeys((*FIELDS, *(name for row in self._rows for name in row)))))
            writer.writeheader()
            writer.writerows(self._rows)

    def _picture(self) -> None:
        path = self.directory / "pictures" / f"scenes_{self.trainer.iteration:06d}.png"
        # Empty scenes are explained, but nothing to look at.
        images = self._test[self._test.count > 0][:_NUM_PICTURED].float_images()
        with self._without_exploration() as agent:
            z = agent.explain(images)
        write_atomically(path, lambda temporary: scenes_beside_reconstructions(images, z, temporary))

    def finish(self) -> dict[str, float]:
        """Draws the last pictures, and measures the agent on held-out scenes that training never looked at.

        Returns:
            The metrics of `evaluate`, which are also in evaluation.json, with the run's iterations and minutes.
        """
        # A run that was cut short may still explore: from here on the agent is the one that was saved.
        self.trainer.agent.exploration = Exploration()
        self.trainer.agent.model.anneal(None)
        self._picture()
        curve = self.directory / "pictures" / "count_accuracy.png"
        write_atomically(curve, lambda path: count_accuracy_curve(self._rows, path))
        # The seed after the recipe's: other arrangements than those the progress bar reports on.
        scenes = self._scene.dataset("test", _NUM_FINAL, self.recipe.seed + 1)
        generator = torch.Generator(self.trainer.device).manual_seed(self.recipe.seed + 1)
        metrics = evaluate(self.trainer.agent, scenes, generator=generator)
        metrics |= {"iterations": self.trainer.iteration, "minutes": self.minutes}
        # JSON has no NaN, which an IoU is where no count is right.
        defined = {name: None if math.isnan(value) else value for name, value in metrics.items()}
        text = json.dumps(defined, indent=2) + "\n"
        write_text_atomically(self.directory / EVALUATION_FILE, text)
        return metrics
