"""A trained model's weights in a model of another width (Net2Net: Chen et al., 2016).

The kernels of channel convolutions do not depend on the width C. A circle of D channels
is covered k times by one of k D: where features repeat with period D along every field,
a circular convolution gives features that repeat too, the very same. So a wide model
begins as k copies of the narrow one: what makes features (first layers, scale and shift
of norms) is repeated, and what sums over them (last layers, queries) is divided. With
k times as many norm groups it is the same function, up to rounding.

Copies that were treated alike would stay alike for ever. The sums over them are shared
out unevenly, which changes no result and lets the copies part.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from deepprism_jax.layers.functional import Functional, values_of

Model = TypeVar("Model", bound=nnx.Module)

WIDTH, GROUPS = "width", "norm_groups"
FREE = (WIDTH, GROUPS, "groups", "dtype", "dropout")
"""Options that may differ between the two models."""

UNEVEN = 0.5
"""Spread of the shares of copies, relative to an even share."""


def options_of(model: Any) -> dict[str, Any]:
    """Return the options of a model: keyword arguments of its constructor."""
    return dict(model.options)


def transfer(model: Model, to: Mapping[str, Any], *, seed: int = 0) -> Model:
    """Return a model of other options that begins with the weights of this one.

    Args:
        model: with `options`, of a class with one width throughout.
        to: options that are to differ: `width`, a multiple of the model's; and
            `norm_groups`, which if left out grows with the width, so that the result is
            the same function.
        seed: of the shares of copies.

    Raises:
        ValueError: weights cannot be carried over; names option and remedy.
    """
    known = options_of(model)
    for name, value in to.items():
        if name not in known:
            raise ValueError(f"{name} is no option; choose one of {', '.join(known)}")
        if name in (WIDTH, GROUPS) and not isinstance(value, int):
            raise ValueError(f"{name}={value!r} must be an integer")
    options: dict[str, Any] = {**known, **to}
    if GROUPS not in to and GROUPS in options:
        options[GROUPS] = known[GROUPS] * _ratio(known, options)
    cls: Any = type(model)
    wanted = nnx.eval_shape(lambda: cls(**options, rngs=nnx.Rngs(0)))
    values, _ = transferred(model, wanted, seed=seed)
    return Functional(wanted).bind({k: jnp.asarray(x) for k, x in values.items()})


def transferred(
    model: nnx.Module, wanted: nnx.Module, *, seed: int = 0
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return values for a model, and notes on what is not the same function.

    Args:
        model: where the weights come from.
        wanted: a model of the same class, without values.
        seed: of the shares of copies.

    Raises:
        ValueError: weights cannot be carried over; names layer or option, and remedy.
    """
    before, after = options_of(model), options_of(wanted)
    _check_options(before, after)
    ratio = _ratio(before, after)
    values = {name: np.asarray(x) for name, x in values_of(model).items()}
    shapes = {name: x.shape for name, x in Functional(wanted).shapes.items()}
    _check_names(values, shapes)
    depth = before[WIDTH] // _fields(before)
    shares = np.random.default_rng(seed).normal(0, UNEVEN, (ratio, before[WIDTH]))
    shares = (1 + shares - shares.mean(0)) / ratio
    found = {}
    for name, shape in shapes.items():
        value = values[name]
        if value.shape != shape:
            value = _widened(name, value, shape, ratio, depth, shares)
        if ratio > 1 and ".attention.query." in name and ".reduce." not in name:
            # Scores are sums over channels, over their root.
            value = value / np.float32(np.sqrt(ratio))
        found[name] = value
    return found, _notes(before, after, ratio)


def _widened(
    name: str,
    value: np.ndarray,
    shape: tuple[int, ...],
    ratio: int,
    depth: int,
    shares: np.ndarray,
) -> np.ndarray:
    """Repeat an array along its axes of channels; share out what is summed over."""
    for axis, (old, new) in enumerate(zip(value.shape, shape, strict=True)):
        if old == new:
            continue
        if new != ratio * old or old % depth:
            raise ValueError(
                f"{name} has shape {value.shape}, and {shape} is wanted: its axis of "
                f"{old} is no multiple of a field's {depth} channels; keep the width"
            )
        summed = name.endswith("kernel") and axis == value.ndim - 2
        value = _repeated(value, axis, ratio, depth)
        if summed:
            share = np.tile(shares[:, :depth], (old // depth, 1, 1)).reshape(-1)
            value = value * share.reshape(-1, 1).astype(value.dtype)
    if value.shape != shape:
        raise ValueError(f"{name} becomes {value.shape}, and {shape} is wanted")
    return value


def _repeated(value: np.ndarray, axis: int, ratio: int, depth: int) -> np.ndarray:
    """Repeat every field along an axis."""
    before, after = value.shape[:axis], value.shape[axis + 1 :]
    fields = value.reshape(*before, -1, depth, *after)
    repeats = [1] * fields.ndim
    repeats[axis + 1] = ratio
    return np.tile(fields, repeats).reshape(*before, -1, *after)


def _fields(options: Mapping[str, Any]) -> int:
    return options["fields"] if options.get("conv") == "deepprism" else 1


def _ratio(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    narrow, wide = before[WIDTH], after[WIDTH]
    if wide % narrow:
        multiples = ", ".join(str(narrow * n) for n in (1, 2, 3, 4))
        raise ValueError(
            f"width={wide} is no multiple of the {narrow} that the weights are of; "
            f"choose one of {multiples}, ..."
        )
    if wide > narrow and len(set(before.get("multipliers") or (1,))) > 1:
        raise ValueError(
            f"width={wide}: weights of a model with multipliers="
            f"{tuple(before['multipliers'])} are not widened; keep width={narrow}"
        )
    return wide // narrow


def _check_options(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    if after[WIDTH] != before[WIDTH] and "channels" in before:
        raise ValueError(
            f"width={after[WIDTH]}: a U-Net's layers of time depend on its width, and "
            f"are not widened; keep width={before[WIDTH]}"
        )
    for name in before.keys() & after.keys() - set(FREE):
        if _plain(before[name]) != _plain(after[name]):
            raise ValueError(
                f"{name}={after[name]}: the weights are of {name}={before[name]} and "
                f"cannot be carried over; set {name}={before[name]}"
            )


def _plain(value: Any) -> Any:
    """Return an option for comparison: no multipliers are ones."""
    if not isinstance(value, list | tuple):
        return value
    return () if set(value) <= {1} else tuple(value)


def _check_names(values: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
    for names, verb in (
        (shapes.keys() - values.keys(), "lack"),
        (values.keys() - shapes.keys(), ""),
    ):
        if names:
            what = f"{verb} {min(names)}" if verb else f"have {min(names)} in excess"
            raise ValueError(f"the weights {what}; choose the options of their model")


def _notes(before: Mapping[str, Any], after: Mapping[str, Any], ratio: int) -> list:
    """Say why a wider model is not the same function, where it is not."""
    if ratio == 1:
        return []
    notes = []
    if GROUPS in before and after[GROUPS] != ratio * before[GROUPS]:
        same = ratio * before[GROUPS]
        notes.append(
            f"norm_groups={after[GROUPS]}: with {same} it would begin as what it was"
        )
    if before.get("conv") == "deepprism" and before["channel_padding"] != "circular":
        notes.append(
            f"channel_padding={before['channel_padding']}: copies of the channels meet "
            "where there was an end, so the wider model begins as another function"
        )
    if (heads := before.get("heads", 1)) > 1 and _fields(before) % heads:
        notes.append(f"heads={heads}: attention begins as another function")
    return notes
