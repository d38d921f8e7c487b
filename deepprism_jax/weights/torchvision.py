"""Feature networks and LPIPS heads from files in torchvision's and lpips' layout.

`python -m deepprism_jax.weights get NAME` brings them; any file with torch's names of
tensors will do, of a kind that `weights.state_dict` reads. Half precision is widened to
float32.
"""

import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deepprism_jax.losses.perceptual import PerceptualDistance
from deepprism_jax.models.feature_networks import (
    NETWORKS,
    FeatureNetwork,
    feature_network,
)
from deepprism_jax.weights.state_dict import read_state_dict
from deepprism_jax.weights.torch_files import StateDict

TORCHVISION_NAMES = {"squeeze": "squeezenet1_1", "vgg": "vgg16", "alex": "alexnet"}


def load_perceptual_distance(
    net: str, weights: str | os.PathLike, heads: str | os.PathLike | None = None
) -> PerceptualDistance:
    """Return the perceptual distance of a network, with LPIPS heads if a file is given.

    `net` is `squeeze`, `vgg` or `alex`. Errors are those of the two loaders below.
    """
    return PerceptualDistance(
        feature_network(net),
        load_feature_network(net, weights),
        load_lpips_heads(net, heads) if heads else None,
    )


def load_feature_network(net: str, path: str | os.PathLike) -> dict[str, Any]:
    """Return the parameters of a feature network from torchvision's state dict.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of another kind or broken, belongs to another network,
            or a tensor is missing, has a wrong shape or is not finite.
    """
    network = feature_network(net)
    state = _read(path, ("features.",), _how_to_get(net))
    _check_network(network, state, path)
    return _place(network.shapes(), state, "features.", path)


def load_lpips_heads(net: str, path: str | os.PathLike) -> tuple[jax.Array, ...]:
    """Return LPIPS's frozen heads of a network: one number a channel for each layer.

    Tensors are named `{net}.lin{l}` (one file for all networks) or, as in the lpips
    package, `lin{l}.model.1.weight`; of shape [C], or [1, C, 1, 1] as 1x1 convolutions.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of another kind or broken, or a head is missing, has a
            wrong size, is not finite or is negative.
    """
    network = feature_network(net)
    remedy = (
        f"run python -m deepprism_jax.weights get lpips_{net}, or bring the heads of "
        f"lpips.LPIPS(net={net!r})"
    )
    state = _read(path, (f"{net}.lin", "lin"), remedy)
    heads = []
    for layer, channels in enumerate(network.channels):
        names = f"{net}.lin{layer}", f"lin{layer}.model.1.weight"
        name = next((name for name in names if name in state), None)
        if name is None:
            raise ValueError(
                f"LPIPS heads {path}: missing {names[0]} (or {names[1]}); {remedy}"
            )
        if state[name].shape not in ((channels,), (1, channels, 1, 1)):
            raise ValueError(
                f"LPIPS heads {path}: {name} has shape {state[name].shape}, but {net} "
                f"has {channels} channels at layer {layer}; {remedy}"
            )
        head = _float32(state[name], name, path).reshape(channels)
        if np.min(head) < 0:
            raise ValueError(
                f"LPIPS heads {path}: {name} has negative weights; {remedy}"
            )
        heads.append(jnp.asarray(head))
    return tuple(heads)


def torch_shapes(network: FeatureNetwork) -> dict[str, tuple[int, ...]]:
    """Return name and shape (OIHW) of every tensor of a network that is read."""
    return _tensors(network.shapes(), "features.")


def head_shapes(network: FeatureNetwork) -> dict[str, tuple[int, ...]]:
    """Return name and shape of a network's LPIPS heads, as in the lpips package."""
    return {
        f"lin{layer}.model.1.weight": (1, channels, 1, 1)
        for layer, channels in enumerate(network.channels)
    }


def _read(path: str | os.PathLike, prefixes: tuple[str, ...], remedy: str) -> StateDict:
    """Read the tensors whose names begin so: VGG16's classifier alone is 0.5 GB."""
    try:
        return read_state_dict(path, prefixes)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"{error}; {remedy}") from error


def _how_to_get(net: str) -> str:
    name = TORCHVISION_NAMES[net]
    return (
        f"run python -m deepprism_jax.weights get {name}, or bring torchvision's state "
        f"dict of {name} (IMAGENET1K_V1)"
    )


def _tensors(shapes: Mapping[str, Any], prefix: str) -> dict[str, tuple[int, ...]]:
    tensors = {}
    for name, value in shapes.items():
        if isinstance(value, dict):
            tensors |= _tensors(value, f"{prefix}{name}.")
        elif name == "kernel":
            tensors[f"{prefix}weight"] = tuple(
                value.shape[axis] for axis in (3, 2, 0, 1)
            )
        else:
            tensors[f"{prefix}{name}"] = value.shape
    return tensors


def _check_network(network: FeatureNetwork, state: StateDict, path: Any) -> None:
    wanted = torch_shapes(network)
    wrong = [name for name, shape in wanted.items() if not _fits(state, name, shape)]
    if not wrong:
        return
    remedy = _how_to_get(network.name)
    for other in NETWORKS.values():
        if all(_fits(state, *tensor) for tensor in torch_shapes(other).items()):
            raise ValueError(
                f"weights file {path} holds {TORCHVISION_NAMES[other.name]}, not "
                f"{TORCHVISION_NAMES[network.name]}; choose net {other.name!r} or "
                f"{remedy}"
            )
    name = wrong[0]
    problem = (
        f"{name} has shape {state[name].shape}, not {wanted[name]}"
        if name in state
        else f"missing {name}"
    )
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    raise ValueError(f"weights file {path}: {problem}{more}; {remedy}")


def _fits(state: StateDict, name: str, shape: tuple[int, ...]) -> bool:
    return name in state and state[name].shape == shape


def _place(
    shapes: dict[str, Any], state: StateDict, prefix: str, path: Any
) -> dict[str, Any]:
    params = {}
    for name, value in shapes.items():
        if isinstance(value, dict):
            params[name] = _place(value, state, f"{prefix}{name}.", path)
        elif name == "kernel":
            weight = _float32(state[f"{prefix}weight"], f"{prefix}weight", path)
            params[name] = jnp.asarray(weight.transpose(2, 3, 1, 0))
        else:
            params[name] = jnp.asarray(
                _float32(state[prefix + name], prefix + name, path)
            )
    return params


def _float32(tensor: np.ndarray, name: str, path: Any) -> np.ndarray:
    tensor = tensor.astype(np.float32)
    if not np.all(np.isfinite(tensor)):
        raise ValueError(f"weights file {path}: {name} has values that are not finite")
    return tensor
