#!/usr/bin/env bash
# TorchRL: a vector environment whose actions are a Dict cannot be wrapped, and the error speaks of batch sizes.
#
# GymWrapper wraps a single environment with a Dict action space, and a vector environment with a Box action space. It
# refuses Gymnasium's own SyncVectorEnv of the former: the specification that it makes of the batched Dict space has no
# batch size. The remedy that the error names is a property of the wrapper, which was not made.
#
# Seen with torchrl 0.14.1, tensordict 0.14.3, torch 2.13.0, gymnasium 1.4.0:
#   single Dict: wrapped, vector Box: wrapped, vector Dict: ValueError (... must match the env batch size ...)
#
# Fails if the vector environment is wrapped.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 torchrl==0.14.1 tensordict==0.14.3 gymnasium==1.4.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torchrl.envs import GymWrapper

BOX = spaces.Box(-1, 1, (2,), np.float32)


class Mover(gymnasium.Env):
    """Ignores what it is told."""

    observation_space = BOX

    def __init__(self, action_space):
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, True, False, {}


def wrap(env):
    """What wrapping and a step give."""
    try:
        GymWrapper(env).rollout(1)
    except ValueError as error:
        return f"ValueError: {str(error)[:90]}"
    return "wrapped"


pair = spaces.Dict({"where": BOX, "stop": spaces.Discrete(2)})
vector = [SyncVectorEnv([lambda: Mover(space)] * 3, autoreset_mode=AutoresetMode.DISABLED) for space in (BOX, pair)]
found = {"single Dict": wrap(Mover(pair)), "vector Box": wrap(vector[0]), "vector Dict": wrap(vector[1])}
for name, result in found.items():
    print(f"{name}: {result}")
assert found["single Dict"] == found["vector Box"] == "wrapped", found
assert "batch size" in found["vector Dict"], "vector environments with Dict actions are treated otherwise now"
print("as found")
PYTHON
