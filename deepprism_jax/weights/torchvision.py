"""Feature networks and LPIPS heads from files in torchvision's and lpips' layout.

The weights are not part of this package. A machine that has torchvision converts them:

    import numpy, torchvision
    net = torchvision.models.squeezenet1_1(weights="IMAGENET1K_V1").state_dict()
    numpy.savez("squeezenet1_1.npz", **{k: v.numpy() for k, v in net.items()})

with `vgg16` or `alexnet` in place of `squeezenet1_1` for the other networks; and one
that has lpips (whose wheel holds the heads) converts these:

    import lpips, numpy
    lins = lpips.LPIPS(net="squeeze", pnet_rand=True).lins.state_dict()
    heads = {f"lin{k[0]}.model.1.weight": v.numpy() for k, v in lins.items()}
    numpy.savez("lpips_heads_squeeze.npz", **heads)

Files are `.npz` or `.safetensors`; half precision is widened to float32.
"""

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from deepprism_jax.losses.perceptual import PerceptualDistance
from deepprism_jax.models.feature_networks import (
    NETWORKS,
    FeatureNetwork,
    feature_network,
)

TORCHVISION_NAMES = {"squeeze": "squeezenet1_1", "vgg": "vgg16", "alex": "alexnet"}

StateDict = dict[str, np.ndarray]

# What reading a truncated, damaged or mislabelled file raises.
UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    TypeError,
    zipfile.BadZipFile,
    zlib.error,
    safetensors.SafetensorError,
)


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
        f"bring the heads of lpips.LPIPS(net={net!r}) as "
        "deepprism_jax/weights/torchvision.py shows"
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


def _read(path: str | os.PathLike, prefixes: tuple[str, ...], remedy: str) -> StateDict:
    """Read the tensors whose names begin so: VGG16's classifier alone is 0.5 GB."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {str(path)!r}; {remedy}")
    if path.suffix not in (".npz", ".safetensors"):
        raise ValueError(
            f"weights file {path} is neither .npz nor .safetensors; {remedy}"
        )
    read = _read_npz if path.suffix == ".npz" else _read_safetensors
    try:
        return read(path, prefixes)
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"cannot read weights file {path}: {reason}; {remedy}"
        ) from error


def _read_npz(path: Path, prefixes: tuple[str, ...]) -> StateDict:
    # NumPy leaves a file that it opened itself open when the archive is broken.
    with path.open("rb") as stream, zipfile.ZipFile(stream):
        stream.seek(0)
        with np.load(stream) as file:
            return {name: file[name] for name in file if name.startswith(prefixes)}


def _read_safetensors(path: Path, prefixes: tuple[str, ...]) -> StateDict:
    with safetensors.safe_open(path, framework="numpy") as file:
        names = [name for name in file.keys() if name.startswith(prefixes)]  # noqa: SIM118
        return {name: file.get_tensor(name) for name in names}


def _how_to_get(net: str) -> str:
    name = TORCHVISION_NAMES[net]
    return (
        f"bring torchvision's state dict of {name} (IMAGENET1K_V1), where it is "
        'installed: python -c "import numpy, torchvision; '
        f"net = torchvision.models.{name}(weights='IMAGENET1K_V1').state_dict(); "
        f"numpy.savez('{name}.npz', **{{k: v.numpy() for k, v in net.items()}})\""
    )


def _tensors(shapes: dict[str, Any], prefix: str) -> dict[str, tuple[int, ...]]:
    """Return torchvision's names and shapes (OIHW) of a parameter pytree."""
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
    wanted = _tensors(network.shapes(), "features.")
    wrong = [name for name, shape in wanted.items() if not _fits(state, name, shape)]
    if not wrong:
        return
    remedy = _how_to_get(network.name)
    for other in NETWORKS.values():
        if all(_fits(state, *t) for t in _tensors(other.shapes(), "features.").items()):
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
