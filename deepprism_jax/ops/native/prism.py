"""The channel convolution by the C++ kernels, where they take a shape."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deepprism_jax.ops import shift_and_add
from deepprism_jax.ops.formulation import Formulation
from deepprism_jax.ops.geometry import Geometry
from deepprism_jax.ops.native import library

_ENDS = {"zero": 0, "replicate": 1, "circular": 2}
_MAPS = {"conv": 0, "input_gradient": 1, "kernel_gradient": 2}


def fits(geometry: Geometry, dtype: Any) -> bool:
    """Return whether there is a kernel for it: 3x3x3 or 1x1x3, D a multiple of 16."""
    rows, columns, taps = geometry.kernel_shape[:3]
    return (
        taps == 3
        and (rows, columns) in ((3, 3), (1, 1))
        and library.takes(geometry.depth, dtype)
    )


def attributes(geometry: Geometry, batch: int) -> dict[str, Any]:
    """Return what the kernels are told of a shape."""
    rows, columns, _, fields_in, fields_out = geometry.kernel_shape
    numbers = (
        *(batch, geometry.height, geometry.width, *geometry.out_size),
        *(geometry.depth, fields_in, fields_out, *geometry.strides, rows, columns),
    )
    return {
        "shape": np.array(numbers, np.int64),
        "ends": np.int64(_ENDS[geometry.padding]),
    }


def _part(name: str):
    def run(geometry: Geometry, a: jax.Array, b: jax.Array) -> jax.Array:
        if not fits(geometry, a.dtype):
            return getattr(shift_and_add.FORMULATION, name)(geometry, a, b)
        fields_in, fields_out = geometry.fields_in, geometry.fields_out
        shapes = {
            "conv": (len(a), *geometry.out_size, fields_out * geometry.depth),
            "input_gradient": (
                len(a),
                geometry.height,
                geometry.width,
                fields_in * geometry.depth,
            ),
            "kernel_gradient": geometry.kernel_shape,
        }
        # Made like an operand, the result has its mesh axes inside `jax.shard_map`.
        result = jnp.zeros_like(a, shape=shapes[name])
        call = jax.ffi.ffi_call("deepprism_prism", result, vmap_method="sequential")
        return call(a, b, **attributes(geometry, len(a)), map=np.int64(_MAPS[name]))

    return run


FORMULATION = Formulation(*map(_part, Formulation._fields))
