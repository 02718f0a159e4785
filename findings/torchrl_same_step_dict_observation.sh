#!/usr/bin/env bash
# TorchRL: with SAME_STEP vector environments, the last observation of an episode is recorded as zeros if it is a Dict.
#
# A vector environment with AutoresetMode.SAME_STEP hands the last observation over in info["final_obs"]. GymWrapper
# accepts this mode. Where observations are a Box, a rollout holds the last observation under "next", as it should.
# Where they are a Dict, it holds zeros there, which a learner that bootstraps or learns a model takes for real; neither
# an error nor a warning tells. With AutoresetMode.DISABLED both are right.
#
# Seen with torchrl 0.14.1, tensordict 0.14.3, torch 2.13.0, gymnasium 1.4.0:
#   Box  SAME_STEP: [0.5, 1.0], Box DISABLED: [0.5, 1.0], Dict SAME_STEP: [0.5, 0.0], Dict DISABLED: [0.5, 1.0]
#
# Fails if the last observation of a Dict is recorded, or if an error or a warning tells of it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 torchrl==0.14.1 tensordict==0.14.3 gymnasium==1.4.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import warnings

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torchrl.envs import GymWrapper


class Clock(gymnasium.Env):
    """Observes half the number of steps; an episode has two. Nothing observed is 0."""

    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, as_dict):
        self.as_dict = as_dict
        box = spaces.Box(-1, 1, (1,), np.float32)
        self.observation_space = spaces.Dict({"time": box}) if as_dict else box

    def observe(self, value):
        value = np.full(1, value, np.float32)
        return {"time": value} if self.as_dict else value

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(0.25), {}

    def step(self, action):
        self.steps += 1
        return self.observe(0.5 * self.steps), 0.0, self.steps == 2, False, {}


seen = {}
with warnings.catch_warnings():
    warnings.simplefilter("error", UserWarning)
    for as_dict, mode in [(d, m) for d in (False, True) for m in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED)]:
        envs = GymWrapper(SyncVectorEnv([lambda: Clock(as_dict)] * 2, autoreset_mode=mode))
        rollout = envs.rollout(2, break_when_any_done=False)
        name = "time" if as_dict else "observation"
        seen[as_dict, mode.name] = rollout["next", name][0, :, 0].tolist()
        print("Dict" if as_dict else "Box ", mode.name, "observations after each step:", seen[as_dict, mode.name])
assert seen[False, "SAME_STEP"] == seen[False, "DISABLED"] == seen[True, "DISABLED"] == [0.5, 1.0], seen
assert seen[True, "SAME_STEP"] == [0.5, 0.0], "the last observation is recorded otherwise now"
print("as found: the last observation of a Dict is lost")
PYTHON
