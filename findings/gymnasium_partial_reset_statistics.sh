#!/usr/bin/env bash
# Gymnasium: after a partial reset, RecordEpisodeStatistics forgets the episodes that go on.
#
# With AutoresetMode.DISABLED, options={"reset_mask": mask} resets only the masked episodes. SyncVectorEnv takes the mask
# out of the caller's dict. RecordEpisodeStatistics looks for it in the same dict afterwards, finds none, and sets the
# return and length of every episode to 0: what it reports for the running ones is too short, without a warning. A caller
# who keeps the dict resets all episodes the next time.
#
# Seen with gymnasium 1.4.0:
#   3 steps, reset of episode 0 only: lengths [0 0] instead of [0 3]; the caller's dict is empty
#
# Fails if the running episode keeps its length.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q gymnasium==1.4.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import warnings

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

warnings.simplefilter("error")
envs = SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * 2, autoreset_mode=AutoresetMode.DISABLED)
envs = RecordEpisodeStatistics(envs)
envs.reset(seed=0)
for _ in range(3):
    envs.step(np.zeros(2, int))
options = {"reset_mask": np.array([True, False])}
envs.reset(options=options)
print("lengths after the partial reset:", envs.episode_lengths, "wanted [0 3]; the caller's dict:", options)
assert envs.episode_lengths.tolist() == [0, 0], "the running episode keeps its length now"
assert options == {}, "the caller's dict is left alone now"
print("as found")
PYTHON
