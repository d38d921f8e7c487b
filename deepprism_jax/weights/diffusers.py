"""KL autoencoders of latent-diffusion and Stable Diffusion, in the layout of diffusers.

That is a folder with `config.json`, whose `_class_name` is AutoencoderKL, and
`diffusion_pytorch_model.safetensors`. They become dense autoencoders whose numbers are
diffusers' own up to rounding.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np

from deepprism_jax.weights.diffusers_config import CLASS, CONFIG, describe
from deepprism_jax.weights.folding import first_mismatch
from deepprism_jax.weights.pretrained import structure_of
from deepprism_jax.weights.state_dict import read_state_dict

Model = TypeVar("Model")

WEIGHTS = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
)

_LAYERS = {
    "norm": "group_norm",
    "norm_out": "conv_norm_out",
    "shortcut": "conv_shortcut",
    "attention.query": "to_q",
    "attention.key": "to_k",
    "attention.value": "to_v",
    "attention.output": "to_out.0",
}
"""Names of layers that are others there."""

_BEFORE = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names in attention that diffusers had until 2023, and those since."""


def from_diffusers(cls: type[Model], path: str | os.PathLike[str]) -> Model:
    """Load the autoencoder of a folder; half precision is widened to float32.

    Args:
        cls: `models.AutoencoderKL`.
        path: folder with the config and the weights.

    Raises:
        FileNotFoundError: one of the two files is not there.
        ValueError: the folder holds another class, or one with options that
            `AutoencoderKL` has not, or the weights are damaged or another network's.
    """
    path = Path(path)
    options = describe(path).options
    file = _weights(path)
    try:
        network = structure_of(cls, {"class": CLASS, "options": options}, path)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path / CONFIG} contradicts itself: {reason}") from None
    places = {name: there(name, options) for name in network.shapes}
    state = {_since_2023(name): x for name, x in read_state_dict(file).items()}
    wanted = {
        places[name]: _torch_shape(name, value.shape)
        for name, value in network.shapes.items()
    }
    _check(state, wanted, file)
    # A tensor goes once it is converted: there are never two copies of all of them.
    return network.bind(
        {name: _convert(state.pop(place)) for name, place in places.items()}
    )


def there(name: str, options: Mapping[str, Any]) -> str:
    """Return what diffusers calls a value of an autoencoder with these options.

    >>> there("encoder.body.2.conv.kernel", options)
    'encoder.down_blocks.0.downsamplers.0.conv.weight'
    """
    owner, _, leaf = name.rpartition(".")
    half, _, layer = owner.partition(".")
    leaf = "bias" if leaf == "bias" else "weight"
    if not layer.startswith("body."):
        parts = [half, _LAYERS.get(layer, layer), leaf]
    else:
        _, number, layer = layer.split(".", 2)
        block = list(_blocks(half, options))[int(number)]
        parts = [half, block, _LAYERS.get(layer, layer), leaf]
    return ".".join(part for part in parts if part)


def _blocks(half: str, options: Mapping[str, Any]) -> Iterator[str]:
    """The blocks of the encoder or of the decoder, in our order by their names."""
    levels, blocks = range(options["downsamples"] + 1), options["blocks"]
    middle = ["resnets.0", "attentions.0", "resnets.1"]
    if not options["attention"]:
        del middle[1]
    middle = [f"mid_block.{block}" for block in middle]
    encodes = half == "encoder"
    side, resampler = ("down", "downsamplers") if encodes else ("up", "upsamplers")
    if not encodes:
        yield from middle
    for level in levels:
        for block in range(blocks if encodes else blocks + 1):
            yield f"{side}_blocks.{level}.resnets.{block}"
        if level < levels[-1]:
            yield f"{side}_blocks.{level}.{resampler}.0"
    if encodes:
        yield from middle


def _weights(path: Path) -> Path:
    for name in WEIGHTS:
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(
        f"{path} has no {WEIGHTS[0]}: bring it, or save the model anew with "
        "safe_serialization=True"
    )


def _since_2023(name: str) -> str:
    """Return the present name of a tensor."""
    if ".attentions." not in name:
        return name
    return ".".join(_BEFORE.get(part, part) for part in name.split("."))


def _torch_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape there: projections of attention have no axes of space."""
    if len(shape) < 4:
        return shape
    turned = (shape[3], shape[2], *shape[:2])
    return turned[:2] if ".attention." in name else turned


def _convert(tensor: np.ndarray) -> Any:
    """Return a tensor of torch as a value: kernels OIHW or OI as HWIO, float32."""
    if tensor.ndim == 2:
        tensor = tensor[:, :, None, None]
    if tensor.ndim == 4:
        tensor = tensor.transpose(2, 3, 1, 0)
    return jnp.asarray(np.ascontiguousarray(tensor, np.float32))


def _check(
    state: dict[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]], file: Path
) -> None:
    """Raise ValueError where a file's tensors are not those that are wanted."""
    for name in state:
        # As 1x1 convolutions, in files of other programs.
        if ".attentions." in name and state[name].shape[2:] == (1, 1):
            state[name] = state[name][:, :, 0, 0]
    wrong = first_mismatch(wanted, state)
    if wrong is None and (excess := sorted(state.keys() - wanted.keys())):
        some = ", ".join(f"{name:.80}" for name in excess[:3])
        wrong = f"it has {len(excess)} tensors in excess: {some}"
    if wrong is not None:
        raise ValueError(
            f"{file} is not of the network in its {CONFIG}: {wrong}; bring both files "
            "from one place"
        )
