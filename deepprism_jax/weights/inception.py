"""The FID Inception-v3 from the torch file of torch-fidelity and pytorch-fid."""

import os
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from deepprism_jax.models.inception import INCEPTION
from deepprism_jax.weights.state_dict import read_state_dict

EPSILON = 1e-3
"""Of the batch norms."""

_NORM = ("weight", "bias", "running_mean", "running_var")


def load_inception(path: str | os.PathLike) -> dict[str, Any]:
    """Return the parameters of `models.inception.INCEPTION`.

    The last layer's bias is left out, as the inception score does.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of another kind or broken, or it is not this network: a
            tensor is missing, has a wrong shape or is not finite.
    """
    state = read_state_dict(path)
    return place(INCEPTION.shapes(), state, f"weights file {path}")


def place(
    shapes: Mapping[str, Any], state: Mapping[str, np.ndarray], source: str
) -> dict[str, Any]:
    """Return the tensors of a state dict in the layout of `shapes`.

    A convolution and the batch norm behind it become one: with s = weight /
    sqrt(running_var + eps), the kernel is multiplied by s, and the bias is
    bias - s running_mean. In float64, rounded once.

    Raises:
        ValueError: a tensor is missing, has a wrong shape or is not finite; begins
            with `source`.
    """
    wrong = next(iter(_mismatches(shapes, state)), None)
    if wrong is not None:
        raise ValueError(
            f"{source} is not the Inception-v3 of FID: {wrong}; torchvision's "
            "inception_v3 is another network; to get the right file run "
            "python -m deepprism_jax.weights get inception"
        )
    return _place(shapes, state, "")


def _place(shapes: Mapping[str, Any], state: Mapping[str, Any], prefix: str) -> Any:
    if "bias" in shapes:
        kernel = state[f"{prefix}conv.weight"].astype(np.float64)
        norm = [state[f"{prefix}bn.{name}"].astype(np.float64) for name in _NORM]
        weight, bias, mean, variance = norm
        scale = weight / np.sqrt(variance + EPSILON)
        kernel = kernel.transpose(2, 3, 1, 0) * scale
        return {
            "kernel": jnp.asarray(kernel, jnp.float32),
            "bias": jnp.asarray(bias - scale * mean, jnp.float32),
        }
    if "kernel" in shapes:
        return {"kernel": jnp.asarray(state[f"{prefix}weight"].T, jnp.float32)}
    return {
        name: _place(value, state, f"{prefix}{name}.") for name, value in shapes.items()
    }


def _mismatches(shapes: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    found = []
    for name, shape in torch_shapes(shapes).items():
        if name not in state:
            found.append(f"it has no {name}")
        elif state[name].shape != shape:
            found.append(f"{name} has shape {state[name].shape}, not {shape}")
        elif not np.isfinite(state[name]).all():
            found.append(f"{name} has values that are not finite")
    return found


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
    norms = {f"{prefix}bn.{name}": kernel[-1:] for name in _NORM}
    return {
        f"{prefix}conv.weight": (kernel[3], kernel[2], kernel[0], kernel[1]),
        **norms,
    }
