"""What of a model is exported: functions of arrays, and the shapes that they take."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export

from deepprism_jax.models import AutoencoderKL, AutoencoderVQ
from deepprism_jax.models.autoencoder import Autoencoder
from deepprism_jax.models.sinddm import SinDDM
from deepprism_jax.models.unet import UNet

CLASSES: Mapping[str, Any] = {
    cls.__name__: cls for cls in (AutoencoderKL, AutoencoderVQ, SinDDM, UNet)
}
"""What can be exported, by the names that exports and runs have."""


class Program(NamedTuple):
    """One function of a model, with its weights inside."""

    function: Callable[..., jax.Array]
    inputs: Mapping[str, tuple[str, Any]]
    """Name of every argument: its shape, in which letters are any size, and type."""
    output: str

    def arguments(
        self, shape_of: Callable[[str], str] = str
    ) -> list[jax.ShapeDtypeStruct]:
        """Return arguments without values, of shapes in which letters are any size.

        Args:
            shape_of: what to make of a shape in `inputs` first.
        """
        scope = export.SymbolicScope()
        return [
            jax.ShapeDtypeStruct(
                export.symbolic_shape(shape_of(shape), scope=scope), dtype
            )
            for shape, dtype in self.inputs.values()
        ]


def programs_of(model: Any) -> dict[str, Program]:
    """Return what is exported of a model, by name.

    Autoencoders: `encode`, images [b, H, W, C] in [-1, 1] to codes [b, H/f, W/f, z]
    (the mean of a KL one, the nearest vectors of the codebook of a VQ one), and
    `decode`, codes to images of about [-1, 1]. Denoisers: `predict`, of noised images,
    times and scales (single-image models), or of noised latents, times and, where the
    model knows classes, labels (U-Nets).

    Raises:
        ValueError: the model is of another class.
    """
    if isinstance(model, Autoencoder):
        return _of_autoencoder(model)
    if isinstance(model, SinDDM | UNet):
        return {"predict": _of_denoiser(model)}
    raise ValueError(
        f"{type(model).__name__} is not exported: give one of {', '.join(CLASSES)}"
    )


def _of_denoiser(model: SinDDM | UNet) -> Program:
    numbers = "b", jnp.int32
    if isinstance(model, SinDDM):
        image = f"b, h, w, {model.options['image_channels']}", jnp.float32
        inputs = {"image": image, "time": numbers, "scale": numbers}
        return Program(model, inputs, "prediction")
    sides = _sides(model.factor)
    latent = f"b, {sides}, {model.options['channels']}", jnp.float32
    inputs = {"latent": latent, "time": numbers}
    if model.options["classes"]:
        inputs["label"] = numbers
    return Program(model, inputs, "prediction")


def _of_autoencoder(model: Autoencoder) -> dict[str, Program]:
    options = model.options

    def encode(image: jax.Array) -> jax.Array:
        if isinstance(model, AutoencoderKL):
            return model.encode(image).mode()
        assert isinstance(model, AutoencoderVQ)
        return model.encode(image).codes

    image = f"b, {_sides(model.factor)}, {options['image_channels']}", jnp.float32
    code = f"b, h, w, {options['z_channels']}", jnp.float32
    return {
        "encode": Program(encode, {"image": image}, "code"),
        "decode": Program(model.decode, {"code": code}, "image"),
    }


def _sides(factor: int) -> str:
    return "h, w" if factor == 1 else f"{factor}*h, {factor}*w"
