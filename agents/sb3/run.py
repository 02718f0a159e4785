"""A training run of a Stable-Baselines3 algorithm, and its directory.

    config.json            the settings
    metrics.csv            one row per evaluation; also in tensorboard/, beside what the algorithm logs
    policy.safetensors     the policy (`load_algorithm`)
    evaluation.json        the finished policy on held-out scenes, beside the empty explanation and chance

A directory appears whole, and every file in it is replaced atomically.
"""

import csv
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from agents.checkpoints import write_atomically, write_text_atomically
from agents.sb3.algorithms import POLICY_FILE, Settings, make_algorithm, save_algorithm
from agents.sb3.evaluation import Act, act_at_random, evaluate_policy, stop_at_once
from agents.sb3.policy import HybridPolicy
from agents.sb3.vec_env import AIRSceneVecEnv
from air_env.world import World, make_world

CONFIG_FILE, METRICS_FILE, EVALUATION_FILE = "config.json", "metrics.csv", "evaluation.json"
FIELDS: tuple[str, ...] = ("steps", "images", "minutes", "return", "count_accuracy", "return_test")
_NUM_EVALUATIONS = 50
_NUM_TEST, _NUM_FINAL = 500, 5_000

Progress = Callable[[int, dict[str, float]], object]


class Run:
    """A training run in a new directory.

    Args:
        directory: The run directory to make.
        settings: What to compute.
        data_dir: Folder of the data files, for scenes that need some.
        device: Where to compute.

    Raises:
        FileExistsError: The directory holds something already.
        ValueError: A setting is not valid.
        OSError: The directory cannot be written.
    """

    def __init__(
        self, directory: Path, settings: Settings, *, data_dir: str | None = None, device: torch.device | str = "cpu"
    ) -> None:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            kind = "a run" if (directory / CONFIG_FILE).exists() else "something"
            raise FileExistsError(f"{directory} already holds {kind}; choose another --output-dir")
        self.directory = directory
        self.settings = settings
        self._data_dir = data_dir
        self.envs = AIRSceneVecEnv(
            settings.num_envs, action_mode=settings.action_mode, world=self._world("train"), device=device
        )
        # Only rewards are normalised: networks divide the pixels by 255 themselves.
        training = VecNormalize(VecMonitor(self.envs), norm_obs=False, gamma=1.0)
        self.algorithm = make_algorithm(settings, training, device)
        self.test = self._world("test", _NUM_TEST)
        self.minutes = 0.0
        self.images = 0
        self.rows: list[dict[str, float]] = []
        self._make_directory()

    def train(self, *, max_minutes: float | None = None, progress: Progress | None = None) -> None:
        """Trains for the settings' steps, or so many minutes, whichever ends first.

        Args:
            max_minutes: Budget, which exploration follows where it is the tighter one; the learning rate does not.
            progress: Called after every step with the number of steps so far and the latest row of metrics.
        """
        if max_minutes is not None and not max_minutes > 0:
            raise ValueError(f"max_minutes must be positive, got {max_minutes}")
        self.algorithm.set_logger(configure(str(self.directory / "tensorboard"), ["tensorboard"]))
        callback = _Callback(self, 60 * max_minutes if max_minutes else float("inf"), progress)
        self.algorithm.learn(self.settings.total_steps, callback=callback)
        self.minutes = callback.elapsed / 60
        self.save()
        self.algorithm.logger.close()

    def save(self) -> None:
        """Saves the policy."""
        save_algorithm(self.algorithm, self.directory / POLICY_FILE, self.settings)

    def measure(self) -> dict[str, float]:
        """A row of metrics: of the last training episodes, and of the policy on some held-out scenes."""
        test = evaluate_policy(self._act(), self.test, self.settings.action_mode)
        returns = [episode["r"] for episode in self.algorithm.ep_info_buffer or []]
        row = {
            "steps": self.algorithm.num_timesteps,
            "images": self.images,
            "minutes": round(self.minutes, 3),
            "return": float(np.mean(returns)) if returns else float("nan"),
            "count_accuracy": test["count_accuracy"],
            "return_test": test["return"],
        }
        self.rows.append(row)
        write_atomically(self.directory / METRICS_FILE, self._write_rows)
        return row

    def finish(self) -> dict[str, float]:
        """Measures the policy on held-out scenes that training never looked at.

        Returns:
            The metrics of `evaluate_policy`; ``return_empty`` and ``return_random``, of stopping at once and of
            uniform actions on the same scenes, as latents; and how long the run was. They are also in evaluation.json.
        """
        # The seed after the run's: other arrangements than those the progress bar reports on.
        world = self._world("test", _NUM_FINAL, seed=self.settings.seed + 1)
        metrics = evaluate_policy(self._act(), world, self.settings.action_mode)
        size = spaces.flatdim(AIRSceneVecEnv(1, world=world).action_space)
        for name, act in {"empty": stop_at_once(size), "random": act_at_random(size)}.items():
            metrics[f"return_{name}"] = evaluate_policy(act, world, "latents")["return"]
        metrics |= {"steps": self.algorithm.num_timesteps, "images": self.images, "minutes": round(self.minutes, 3)}
        finite = {name: None if np.isnan(value) else value for name, value in metrics.items()}
        write_text_atomically(self.directory / EVALUATION_FILE, json.dumps(finite, indent=2) + "\n")
        return metrics

    def _act(self) -> Act:
        return lambda observation: self.algorithm.predict(observation, deterministic=True)[0]

    def _world(self, split: Any, num_scenes: int | None = None, seed: int | None = None) -> World:
        settings = self.settings
        return make_world(
            settings.scene,
            split=split,
            num_scenes=num_scenes or settings.num_train,
            scene_seed=settings.seed if seed is None else seed,
            data_dir=self._data_dir,
            scene_options=settings.scene_options,
        )

    def _make_directory(self) -> None:
        nascent = self.directory.with_name(f".{self.directory.name}.{os.getpid()}.tmp")
        try:
            nascent.mkdir(parents=True)
            write_text_atomically(nascent / CONFIG_FILE, json.dumps(asdict(self.settings), indent=2) + "\n")
            save_algorithm(self.algorithm, nascent / POLICY_FILE, self.settings)
            nascent.rename(self.directory)
        except OSError as error:
            shutil.rmtree(nascent, ignore_errors=True)
            raise OSError(
                f"could not make the run directory {self.directory} ({error}); choose another --output-dir"
            ) from error

    def _write_rows(self, path: Path) -> None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(self.rows)


class _Callback(BaseCallback):
    """Schedules, evaluations and checkpoints while an algorithm learns."""

    def __init__(self, run: Run, budget: float, progress: Progress | None) -> None:
        super().__init__()
        self._run, self._budget, self._progress = run, budget, progress
        self._begun = time.monotonic()
        self._measured = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds of training."""
        return time.monotonic() - self._begun

    def _on_rollout_start(self) -> None:
        run = self._run
        share = max(self.num_timesteps / run.settings.total_steps, self.elapsed / self._budget)
        if isinstance(run.algorithm.policy, HybridPolicy):
            run.algorithm.policy.exploration = run.settings.exploration_at(share)
        if share >= self._measured + 1 / _NUM_EVALUATIONS:
            self._measured = share
            self._measure()

    def _on_step(self) -> bool:
        run = self._run
        run.images += int(self.locals["dones"].sum())
        if self._progress is not None:
            self._progress(self.num_timesteps, run.rows[-1] if run.rows else {})
        return self.elapsed < self._budget

    def _on_training_end(self) -> None:
        self._measure()

    def _measure(self) -> None:
        run = self._run
        run.minutes = self.elapsed / 60
        row = run.measure()
        for name in ("count_accuracy", "return_test"):
            self.logger.record(f"held_out/{name}", row[name])
        run.save()
