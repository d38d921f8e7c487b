"""Pixel reconstruction: eq. (6)."""

from typing import Literal

import jax.numpy as jnp

from deepprism_jax.typing import Image, Scalar


def reconstruction_loss(
    x: Image,
    y: Image,
    kind: Literal["l2", "l1"] = "l2",
    reduction: Literal["mean", "sum"] = "mean",
) -> Scalar:
    """Mean square (eq. 6) or mean absolute error between images of equal shape.

    `reduction="mean"` averages over all elements, as eq. (6) is read here; `"sum"` sums
    over each image and averages over the batch, as latent diffusion does with `"l1"`.
    Any factor 1/2 belongs to the term's weight. Computed in float32.
    """
    check_alike(x, y)
    difference = x.astype(jnp.float32) - y.astype(jnp.float32)
    match kind:
        case "l2":
            error = jnp.square(difference)
        case "l1":
            error = jnp.abs(difference)
        case _:
            raise ValueError(f"unknown pixel loss kind={kind!r}; choose 'l2' or 'l1'")
    match reduction:
        case "mean":
            return jnp.mean(error)
        case "sum":
            return jnp.mean(jnp.sum(error, axis=(-3, -2, -1)))
        case _:
            raise ValueError(f"unknown {reduction=}; choose 'mean' or 'sum'")


def check_alike(x: Image, y: Image) -> None:
    """Refuse images of other shapes.

    Raises:
        ValueError: broadcasting would average over pairs that were never meant.
    """
    if x.shape != y.shape:
        raise ValueError(f"images must have equal shapes, got {x.shape} and {y.shape}")
