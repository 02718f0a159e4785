#!/usr/bin/env bash
# Gymnasium: NumpyToTorch works on a SAME_STEP vector environment until the first episode ends, and then raises.
#
# In this mode the info of a step that ends an episode holds the last observations as an array of objects. The wrapper
# converts the whole info, and DLPack has no objects. The error names neither the mode nor the entry, and comes as late
# as the first episode is long. NEXT_STEP and DISABLED work.
#
# Seen with gymnasium 1.4.0, torch 2.13.0, array-api-compat 1.16.0:
#   NEXT_STEP: works, SAME_STEP: BufferError in the step that ends an episode, DISABLED: works
#
# Fails if SAME_STEP works.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 "gymnasium[array-api]==1.4.0" numpy==2.4.6 array-api-compat==1.16.0
"$folder/venv/bin/python" - <<'PYTHON'
import gymnasium
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import NumpyToTorch


def first_end(mode):
    """What comes of the steps up to the first end of an episode."""
    envs = NumpyToTorch(SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * 2, autoreset_mode=mode))
    envs.reset(seed=0)
    for step in range(100):
        try:
            _, _, terminations, _, _ = envs.step(torch.zeros(2, dtype=torch.int64))
        except BufferError as error:
            return f"BufferError in step {step + 1} ({error})"
        if terminations.any():
            return "works"
    raise AssertionError("no episode ended")


found = {mode.name: first_end(mode) for mode in AutoresetMode}
for name, result in found.items():
    print(f"{name}: {result}")
assert found["NEXT_STEP"] == found["DISABLED"] == "works", found
assert found["SAME_STEP"].startswith("BufferError"), "SAME_STEP is converted now"
print("as found")
PYTHON
