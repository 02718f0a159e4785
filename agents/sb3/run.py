"""A training run of a Stable-Baselines3 algorithm, and its directory.

    config.json            the settings
    metrics.csv            one row per evaluation; also in tensorboard/, beside what the algorithm logs
    policy.safetensors     the policy (`load_algorithm`)
    resume.pt              what else a continued run needs
    evaluation.json        the finished policy on held-out scenes, beside the empty explanation and chance

A directory appears whole, and every file in it is replaced atomically.
"""

import csv
import json
import os
import pickle
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from air_env.world import World, make_world

from ..training.files import write_atomically, write_text_atomically
from ..training.serialisation import from_json
from .algorithms import POLICY_FILE, Settings, make_algorithm, save_algorithm
from .evaluation import Act, act_at_random, evaluate_policy, stop_at_once
from .policy import HybridPolicy
from .vec_env import AIRSceneVecEnv

CONFIG_FILE, METRICS_FILE, EVALUATION_FILE, RESUME_FILE = "config.json", "metrics.csv", "evaluation.json", "resume.pt"
FIELDS: tuple[str, ...] = ("steps", "images", "minutes", "return", "count_accuracy", "return_test")
_NUM_EVALUATIONS = 50
_NUM_TEST, _NUM_FINAL = 500, 5_000

Progress = Callable[[int, dict[str, float]], object]


class Run:
    """A training run and its directory; `start` makes one, `resume` continues one."""

    def __init__(self, directory: Path, settings: Settings, data_dir: str | None, device: torch.device | str) -> None:
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

    @classmethod
    def start(
        cls, directory: Path, settings: Settings, *, data_dir: str | None = None, device: torch.device | str = "cpu"
    ) -> "Run":
        """Makes a run directory, with an untrained policy in it.

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
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            kind = "a run" if (directory / CONFIG_FILE).exists() else "something"
            raise FileExistsError(
                f"{directory} already holds {kind}; continue it with --resume, or choose another --output-dir"
            )
        run = cls(directory, settings, data_dir, device)
        run._make_directory()
        return run

    @classmethod
    def resume(cls, directory: Path, *, data_dir: str | None = None, device: torch.device | str = "cpu") -> "Run":
        """Continues a run from its last checkpoint.

        Weights, optimisers and schedules go on where they stood; the noise, and what SAC remembers, begin anew, so that
        the numbers are not those of a run that was never stopped.

        Raises:
            FileNotFoundError: The directory holds no run.
            ValueError: Its files are damaged.
        """
        damaged = f"the run in {directory} cannot be resumed: its files are damaged or not a run's"
        try:
            settings = from_json(Settings, json.loads((directory / CONFIG_FILE).read_text()))
            state = torch.load(directory / RESUME_FILE, map_location=device, weights_only=True)  # noqa: TID251
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{directory} holds no run to resume ({error.filename} is missing)") from error
        except pickle.UnpicklingError as error:
            raise ValueError(f"{damaged} ({RESUME_FILE} is no checkpoint)") from error
        except (ValueError, RuntimeError, EOFError, OSError) as error:
            raise ValueError(f"{damaged} ({error})") from error
        run = cls(directory, settings, data_dir, device)
        try:
            run.algorithm.policy.load_state_dict(state["policy"])
            for name, optimizer in run._optimizers().items():
                optimizer.load_state_dict(state["optimizers"][name])
            if isinstance(run.algorithm, SAC):
                cast(Any, run.algorithm).log_ent_coef.data.copy_(state["log_ent_coef"])
            run._normalisation().mean, run._normalisation().var, run._normalisation().count = state["returns"]
            run.algorithm.num_timesteps, run.images, run.minutes = state["steps"], state["images"], state["minutes"]
            run.rows = state["rows"]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise ValueError(f"{damaged} ({RESUME_FILE} does not fit: {error!r})") from error
        return run

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
        left = self.settings.total_steps - self.algorithm.num_timesteps
        if left > 0:
            self.algorithm.learn(left, callback=callback, reset_num_timesteps=False)
        self.minutes = callback.elapsed / 60
        self.save()
        self.algorithm.logger.close()

    def save(self) -> None:
        """Saves the policy, and what else a continued run needs."""
        save_algorithm(self.algorithm, self.directory / POLICY_FILE, self.settings)
        algorithm, returns = self.algorithm, self._normalisation()
        entropy = getattr(algorithm, "log_ent_coef", None)  # SAC's
        state = {
            "policy": algorithm.policy.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self._optimizers().items()},
            "returns": (float(returns.mean), float(returns.var), float(returns.count)),
            "log_ent_coef": None if entropy is None else entropy.detach(),
            "steps": algorithm.num_timesteps,
            "images": self.images,
            "minutes": self.minutes,
            "rows": self.rows,
        }
        write_atomically(self.directory / RESUME_FILE, lambda path: torch.save(state, path))

    def _optimizers(self) -> dict[str, Any]:
        """The algorithm's optimisers by name."""
        algorithm: Any = self.algorithm
        if isinstance(algorithm, SAC):
            parts = {"actor": algorithm.actor.optimizer, "critic": algorithm.critic.optimizer}
            return parts | {"entropy": algorithm.ent_coef_optimizer}
        return {"policy": algorithm.policy.optimizer}

    def _normalisation(self) -> RunningMeanStd:
        """What the returns are divided by."""
        envs = self.algorithm.get_vec_normalize_env()
        assert envs is not None
        return envs.ret_rms

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
            place, self.directory = self.directory, nascent
            self.save()
            self.directory = nascent.rename(place)
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
        self._begun = time.monotonic() - 60 * run.minutes
        self._measured = run.algorithm.num_timesteps / run.settings.total_steps

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
