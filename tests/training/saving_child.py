"""Save checkpoints without end, of a state that is donated meanwhile.

    python saving_child.py DIRECTORY

Every array of the state of step n is n throughout, so a checkpoint tells whether it is
of one moment. Prints a line once the first save has begun.
"""

import sys

import jax
import jax.numpy as jnp

from deepprism_jax.training.checkpoints import Checkpoints
from deepprism_jax.weights.items import steps

SHAPES = {"big": (64, 1 << 12), **{f"small{i}": (16,) for i in range(10)}}


def state(step):
    return {name: jnp.full(shape, float(step)) for name, shape in SHAPES.items()}


def main(directory):
    jax.config.update("jax_num_cpu_devices", 2)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    advance = jax.jit(
        lambda tree: jax.tree.map(lambda x: x + 1.0, tree), donate_argnums=0
    )
    step = max(steps(directory), default=0)
    now = jax.device_put(state(step), here)
    with Checkpoints(directory, keep=2, say=print) as checkpoints:
        while True:
            now, step = advance(now), step + 1
            checkpoints.save(step, {"state": now, "data": {"batch": step}})
            print(step, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
