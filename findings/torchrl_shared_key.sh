#!/usr/bin/env bash
# TorchRL: an action and an observation of the same name share one entry, and the rollout keeps the action.
#
# A Gymnasium environment may name an entry of its Dict observation as it names an entry of its Dict action: the spaces
# are separate. TorchRL's GymWrapper puts both at the root of one TensorDict. check_env_specs passes, no warning is
# given, and in a rollout the entry holds the sampled action where a learner expects the observation of that step. The
# observation is lost; only its successor, under "next", is right.
#
# Seen with torchrl 0.14.1, tensordict 0.14.3, torch 2.13.0, gymnasium 1.4.0:
#   observation at reset [0.0, 0.0], recorded under "position": the action
#
# Fails if the reset's observation is recorded, or if an error or a warning names the clash.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 torchrl==0.14.1 tensordict==0.14.3 gymnasium==1.4.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import warnings

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torchrl.envs import GymWrapper
from torchrl.envs.utils import check_env_specs


class Walk(gymnasium.Env):
    """The action says where to go, the observation where one is."""

    observation_space = spaces.Dict({"position": spaces.Box(-1, 1, (2,), np.float32)})
    action_space = spaces.Dict({"position": spaces.Box(-1, 1, (2,), np.float32), "stop": spaces.Discrete(2)})

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"position": np.zeros(2, np.float32)}, {}

    def step(self, action):
        self.received = action["position"].copy()
        return {"position": np.full(2, 0.5, np.float32)}, 0.0, True, False, {}


torch.manual_seed(0)
with warnings.catch_warnings():
    warnings.simplefilter("error", UserWarning)
    env = Walk()
    wrapped = GymWrapper(env)
    check_env_specs(wrapped)
    rollout = wrapped.rollout(1)
recorded = rollout["position"][0].numpy()
print("observation at reset [0.0, 0.0], recorded under 'position':", recorded)
assert np.array_equal(recorded, env.received), "it is not the action any more"
assert not np.array_equal(recorded, np.zeros(2)), "the observation is kept now"
assert np.array_equal(rollout["next", "position"][0].numpy(), np.full(2, 0.5, np.float32))
print("as found: the action has replaced the observation, and check_env_specs passed")
PYTHON
