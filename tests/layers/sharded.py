"""Run functions and modules with channels cut over devices, for tests."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, PartitionSpec

from deepprism_jax.layers.functional import Functional
from deepprism_jax.ops.channel_shards import over_channels

Arrays = dict[str, Any]
Axes = dict[str, int | None]

AXIS = "channel"


def specs(axes: Axes) -> dict[str, PartitionSpec]:
    """How arrays are cut whose fields are apart: axis [F * D] made [F, D]."""
    return {
        name: PartitionSpec()
        if axis is None
        else PartitionSpec(*[None] * (axis + 1), AXIS)
        for name, axis in axes.items()
    }


def fields_apart(arrays: Arrays, axes: Axes, fields: int) -> Arrays:
    """Make [..., F * D, ...] [..., F, D, ...], so that each field can be cut."""
    return {
        name: array
        if (axis := axes[name]) is None
        else array.reshape(*array.shape[:axis], fields, -1, *array.shape[axis + 1 :])
        for name, array in arrays.items()
    }


def fields_together(arrays: Arrays, axes: Axes) -> Arrays:
    """Undo it, of a device's part as well."""
    return {
        name: array
        if (axis := axes[name]) is None
        else array.reshape(*array.shape[:axis], -1, *array.shape[axis + 2 :])
        for name, array in arrays.items()
    }


def on_shards(
    function: Callable[[Arrays], Arrays],
    axes_in: Axes,
    axes_out: Axes,
    *,
    count: int,
    fields: int = 1,
) -> Callable[[Arrays], Arrays]:
    """`function` of named arrays, cut along these axes over `count` devices."""
    devices = np.array(jax.devices()[:count])
    mesh = Mesh(devices, (AXIS,), axis_types=(AxisType.Auto,))

    def body(parts):
        with over_channels(AXIS, count, fields):
            y = function(fields_together(parts, axes_in))
        return fields_apart(y, axes_out, fields)

    def run(arrays):
        y = jax.shard_map(
            body,
            mesh=mesh,
            in_specs=(specs(axes_in),),
            out_specs=specs(axes_out),
            check_vma=False,
        )(fields_apart(arrays, axes_in, fields))
        return fields_together(y, axes_out)

    return run


def both_ways(
    make: Callable[[], Any],
    x: np.ndarray,
    *,
    count: int,
    fields: int = 1,
    whole: tuple[str, ...] = (),
    call: Callable[[Any, jax.Array], jax.Array] | None = None,
) -> tuple[Arrays, Arrays]:
    """Results on whole maps and on shards: `y`, and gradients to `x` and to values.

    Values are noise. Names in `whole` are of "x" and "y", where those are not feature
    maps.
    """
    functional = Functional(nnx.eval_shape(make))
    draw = np.random.default_rng(1)
    values = {
        name: draw.normal(0.0, 0.5, value.shape).astype(value.dtype)
        for name, value in functional.shapes.items()
    }

    def forward(values, x):
        bound = functional.bind(values)
        return call(bound, x) if call else bound(x)

    def run(arrays):
        values = dict(arrays)
        x, weights = values.pop("x"), values.pop("weights")
        y, pull = jax.vjp(forward, values, x)
        of_values, of_x = pull((jnp.cos(y) * weights).astype(y.dtype))
        return {**of_values, "x": of_x, "y": y}

    shape = jax.eval_shape(forward, values, x).shape
    weights = draw.normal(size=shape).astype(np.float32)
    arrays = {**values, "x": x, "weights": weights}
    axes: Axes = {name: None if name in whole else 3 for name in "xy"}
    axes |= functional.channel_axes
    axes_in = {name: axes["y" if name == "weights" else name] for name in arrays}
    shards = on_shards(run, axes_in, axes, count=count, fields=fields)
    return jax.jit(run)(arrays), jax.jit(shards)(arrays)
