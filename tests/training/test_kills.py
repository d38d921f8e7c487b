"""A process that is killed while it saves in the background leaves nothing broken."""

import random
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from saving_child import SHAPES, state

from deepprism_jax.training.checkpoints import Checkpoints
from deepprism_jax.weights.items import load_items, steps
from deepprism_jax.weights.manifest import MANIFEST

CHILD = Path(__file__).with_name("saving_child.py")
HERE = jax.sharding.SingleDeviceSharding(jax.devices()[0])
TARGETS = {
    "state": {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=HERE)
        for name, x in jax.eval_shape(lambda: state(0)).items()
    },
    "data": None,
}


def check(directory, kept):
    """Every complete checkpoint is of one moment; the newest of before is still there
    or has made room for one that is newer."""
    found = steps(directory)
    assert max(found, default=0) >= max(kept, default=0)
    for step in found:
        items = load_items(directory / str(step), TARGETS)
        assert items["data"] == {"batch": step}
        for name in SHAPES:
            assert np.unique(items["state"][name]).tolist() == [step]
    if found:
        checkpoints = Checkpoints(directory, keep=2, say=lambda line: None)
        assert checkpoints.restore(TARGETS)[0] == found[-1]
    return found


def kill_at_random(directory, seed):
    """Kill a child at a moment that the seed tells; return whether that cut a save."""
    chance = random.Random(seed)
    child = subprocess.Popen(
        [sys.executable, str(CHILD), str(directory)], stdout=subprocess.PIPE, text=True
    )
    try:
        for _ in range(chance.randint(1, 4)):
            assert child.stdout is not None
            assert child.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.3))
    finally:
        child.kill()
        child.communicate()
    present = [p for p in directory.iterdir() if not (p / MANIFEST).exists()]
    return bool(present)


def kill_again_and_again(directory, seeds):
    kept, cut = [], 0
    for seed in seeds:
        cut += kill_at_random(directory, seed)
        found = check(directory, kept)
        print(f"seed {seed}: killed beyond step {max(found, default=0)}, kept {found}")
        kept = found
    print(f"{cut} of {len(seeds)} kills cut off a save")
    return cut


def test_a_kill_leaves_whole_checkpoints(tmp_path):
    kill_again_and_again(tmp_path, seeds=[0])


@pytest.mark.slow
def test_twenty_kills_leave_whole_checkpoints(tmp_path):
    seed = random.randrange(1000)
    assert kill_again_and_again(tmp_path, seeds=range(seed, seed + 20)) >= 5
