"""The FID Inception-v3 from the torch file of torch-fidelity and pytorch-fid."""

import os
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from deepprism_jax.models.inception import INCEPTION
from deepprism_jax.weights.folding import (
    first_mismatch,
    fold_batch_norm,
    folded_shapes,
)
from deepprism_jax.weights.state_dict import read_state_dict

EPSILON = 1e-3
"""Of the batch norms."""


def load_inception(path: str | os.PathLike) -> dict[str, Any]:
    """Return the parameters of `models.inception.INCEPTION`.

    The last layer's bias is left out, as the inception score does.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of another kind or broken, or it is not this network: a
            tensor is missing, has a wrong shape or is not finite.
    """
    return place(INCEPTION.shapes(), read_state_dict(path), f"weights file {path}")


def place(
    shapes: Mapping[str, Any], state: Mapping[str, np.ndarray], source: str
) -> dict[str, Any]:
    """Return the tensors of a state dict in the layout of `shapes`, norms folded in.

    Raises:
        ValueError: a tensor is missing, has a wrong shape or is not finite; begins
            with `source`.
    """
    wrong = first_mismatch(torch_shapes(shapes), state)
    if wrong is not None:
        raise ValueError(
            f"{source} is not the Inception-v3 of FID: {wrong}; torchvision's "
            "inception_v3 is another network; to get the right file run "
            "python -m deepprism_jax.weights get inception"
        )
    return _place(shapes, state, "")


def _place(shapes: Mapping[str, Any], state: Mapping[str, Any], prefix: str) -> Any:
    if "bias" in shapes:
        return fold_batch_norm(state, f"{prefix}conv", f"{prefix}bn", EPSILON)
    if "kernel" in shapes:
        return {"kernel": jnp.asarray(state[f"{prefix}weight"].T, jnp.float32)}
    return {
        name: _place(value, state, f"{prefix}{name}.") for name, value in shapes.items()
    }


def torch_shapes(
    shapes: Mapping[str, Any], prefix: str = ""
) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor that is read, as torch has them."""
    if "kernel" not in shapes:
        return {
            tensor: shape
            for name, value in shapes.items()
            for tensor, shape in torch_shapes(value, f"{prefix}{name}.").items()
        }
    kernel = shapes["kernel"].shape
    if "bias" not in shapes:
        return {f"{prefix}weight": kernel[::-1]}
    return folded_shapes(f"{prefix}conv", f"{prefix}bn", kernel)
