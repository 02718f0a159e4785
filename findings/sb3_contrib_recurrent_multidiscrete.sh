#!/usr/bin/env bash
# sb3-contrib: RecurrentPPO does not start where an entry of a Dict observation is MultiDiscrete, though PPO does.
#
# The combined feature extractor adds up the sizes of the entries. Of a MultiDiscrete entry it takes numpy's sum, so that
# the number of features is a numpy integer, which torch's LSTM refuses. The same observations do for PPO, whose linear
# layers take such a number; a MultiBinary entry does for both.
#
# Seen with sb3-contrib 2.9.2, stable-baselines3 2.9.2, torch 2.13.0, gymnasium 1.4.0:
#   PPO: starts, RecurrentPPO: TypeError (input_size should be of type int, got: int64), with MultiBinary: starts
#
# Fails if RecurrentPPO starts with MultiDiscrete.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 stable-baselines3==2.9.2 sb3-contrib==2.9.2 gymnasium==1.4.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import gymnasium
import numpy as np
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO


class Dice(gymnasium.Env):
    """Shows what was thrown."""

    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, shown):
        self.observation_space = spaces.Dict({"shown": shown, "time": spaces.Box(0, 1, (1,), np.float32)})

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, True, False, {}


def start(algorithm, policy, shown):
    """Whether an algorithm starts."""
    try:
        algorithm(policy, Dice(shown), n_steps=8, batch_size=8)
    except TypeError as error:
        return f"TypeError: {error}"
    return "starts"


thrown = spaces.MultiDiscrete([6, 6])
ppo = start(PPO, "MultiInputPolicy", thrown)
recurrent = start(RecurrentPPO, "MultiInputLstmPolicy", thrown)
binary = start(RecurrentPPO, "MultiInputLstmPolicy", spaces.MultiBinary(12))
print(f"PPO, MultiDiscrete: {ppo}\nRecurrentPPO, MultiDiscrete: {recurrent}\nRecurrentPPO, MultiBinary: {binary}")
assert (ppo, binary) == ("starts", "starts")
assert recurrent.startswith("TypeError: input_size"), "RecurrentPPO starts with MultiDiscrete now"
print("as found")
PYTHON
