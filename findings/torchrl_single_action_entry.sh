#!/usr/bin/env bash
# TorchRL: a Dict action space with one entry reaches the environment as a bare array, which is not in its space.
#
# With two entries, GymWrapper calls env.step with a dict, as Gymnasium's contract has it. With one entry it unwraps the
# dict: env.step gets the array alone, and env.action_space.contains(action) is False. An environment that reads
# action["move"] raises an IndexError inside its own code, which does not point to the wrapper.
#
# Seen with torchrl 0.14.1, tensordict 0.14.3, torch 2.13.0, gymnasium 1.4.0:
#   1 entry:   step got ndarray, in the action space: False
#   2 entries: step got dict, in the action space: True
#
# Fails if an action with one entry arrives as a dict.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 torchrl==0.14.1 tensordict==0.14.3 gymnasium==1.4.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import gymnasium
import numpy as np
from gymnasium import spaces
from torchrl.envs import GymWrapper


class Mover(gymnasium.Env):
    """Takes a Dict action and notes what came."""

    observation_space = spaces.Dict({"where": spaces.Box(-1, 1, (2,), np.float32)})

    def __init__(self, names):
        self.action_space = spaces.Dict({name: spaces.Box(-1, 1, (2,), np.float32) for name in names})

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"where": np.zeros(2, np.float32)}, {}

    def step(self, action):
        self.received = type(action).__name__, bool(self.action_space.contains(action))
        return {"where": np.zeros(2, np.float32)}, 0.0, True, False, {}


seen = {}
for names in (["move"], ["move", "turn"]):
    env = Mover(names)
    GymWrapper(env).rollout(1)
    seen[len(names)] = env.received
    print(f"{len(names)} entries: step got {env.received[0]}, in the action space: {env.received[1]}")
assert seen[1] == ("ndarray", False), "an action with one entry arrives otherwise now"
assert seen[2][0] == "dict", "an action with two entries arrives otherwise now"
print("as found")
PYTHON
