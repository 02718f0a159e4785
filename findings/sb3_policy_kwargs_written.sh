#!/usr/bin/env bash
# Stable-Baselines3: an algorithm writes into the caller's policy_kwargs, and the next one trains with another optimiser.
#
# A dict of policy_kwargs that a comparison shares among algorithms is kept by reference and written to: A2C adds its
# RMSprop, so that PPO made afterwards from the same dict trains with RMSprop instead of Adam, without a warning. SAC
# adds use_sde, so that PPO made afterwards does not start at all. The order of the algorithms decides the result.
#
# Seen with stable-baselines3 2.9.2, torch 2.13.0, gymnasium 1.4.0:
#   PPO alone: Adam; PPO after A2C: RMSprop; PPO after SAC: TypeError
#
# Fails if PPO is made with Adam after A2C, or starts after SAC.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 stable-baselines3==2.9.2 gymnasium==1.4.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
from stable_baselines3 import A2C, PPO, SAC


def optimiser_of_ppo(*before):
    """PPO's optimiser, where other algorithms were made of the same policy_kwargs before it."""
    policy_kwargs = {"net_arch": [8]}
    for algorithm in before:
        algorithm("MlpPolicy", "Pendulum-v1", policy_kwargs=policy_kwargs)
    try:
        ppo = PPO("MlpPolicy", "Pendulum-v1", policy_kwargs=policy_kwargs)
    except TypeError as error:
        print("PPO after", *(algorithm.__name__ for algorithm in before), "raises TypeError:", error)
        return "TypeError"
    print("PPO after", *(algorithm.__name__ for algorithm in before), "trains with", type(ppo.policy.optimizer).__name__)
    return type(ppo.policy.optimizer).__name__


assert optimiser_of_ppo() == "Adam"
assert optimiser_of_ppo(A2C) == "RMSprop", "A2C keeps its settings to itself now"
assert optimiser_of_ppo(SAC) == "TypeError", "SAC keeps its settings to itself now"
print("as found")
PYTHON
