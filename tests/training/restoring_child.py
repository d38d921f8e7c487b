"""One of several processes that save or restore a state; see test_elsewhere.py.

python restoring_child.py '{"port": ..., "count": 2, "index": 0, "devices": 2,
    "axes": {"fsdp": 2, "channel": 2}, "directory": ..., "do": "save"}'
"""

import json
import sys

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from deepprism_jax.training.checkpoints import Checkpoints

SPECS = {
    "whole": PartitionSpec(),
    "rows": PartitionSpec("fsdp"),
    "columns": PartitionSpec(None, "channel"),
    "both": PartitionSpec(("data", "fsdp"), "channel"),
    "step": PartitionSpec(),
}
"""How the arrays of the state are cut; both sides are divisible by 16."""


def value(name, step):
    shape = () if name == "step" else (16, 32)
    start = 1000.0 * sorted(SPECS).index(name) + step
    return np.arange(start, start + np.prod(shape), dtype=np.float32).reshape(shape)


def shardings(mesh):
    return {name: NamedSharding(mesh, spec) for name, spec in SPECS.items()}


def place(mesh, step):
    """The state of a step, on a mesh that may span processes."""
    return {
        name: jax.make_array_from_callback(
            value(name, step).shape,
            sharding,
            lambda index, name=name: value(name, step)[index],
        )
        for name, sharding in shardings(mesh).items()
    }


def targets(mesh):
    return {
        "state": {
            name: jax.ShapeDtypeStruct(
                value(name, 0).shape, np.float32, sharding=sharding
            )
            for name, sharding in shardings(mesh).items()
        },
        "data": None,
    }


def check(mesh, items, step):
    """What has come is what was saved, and lies where it was asked for."""
    assert items["data"] == {"batch": step, "of": 0}
    for name, sharding in shardings(mesh).items():
        x = items["state"][name]
        assert x.sharding.is_equivalent_to(sharding, x.ndim), name
        for shard in x.addressable_shards:
            expected = value(name, step)[shard.index]
            np.testing.assert_array_equal(np.asarray(shard.data), expected)


def main(asked):
    from deepprism_jax.training.sharding import make_mesh

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", asked["devices"])
    if asked["count"] > 1:
        jax.distributed.initialize(
            f"127.0.0.1:{asked['port']}", asked["count"], asked["index"]
        )
    mesh = make_mesh(**asked["axes"])
    with Checkpoints(asked["directory"], keep=9, say=print) as checkpoints:
        step = 0
        if asked["restore"]:
            step, items = checkpoints.restore(targets(mesh))
            check(mesh, items, step)
        data = {"batch": step + 1, "of": jax.process_index()}
        items = {"state": place(mesh, step + 1), "data": data}
        checkpoints.save(step + 1, items, score=float(step))
        assert checkpoints.wait()
        assert checkpoints.latest == step + 1
    print("done", step)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
