"""What is checked of an autoencoder's experiment before any work."""

from collections.abc import Iterator
from pathlib import Path

from deepprism_jax.losses.structural import WINDOW
from deepprism_jax.training.autoencoder.networks import LPIPS
from deepprism_jax.training.config import Config, LossConfig, ModelConfig
from deepprism_jax.training.preflight import (
    PreflightError,
    as_steps,
    batch_problems,
    common_problems,
    width_problems,
)
from deepprism_jax.weights import store
from deepprism_jax.weights.registry import COMMAND
from deepprism_jax.weights.torchvision import TORCHVISION_NAMES

_PERCEPTUAL_FILES = ("perceptual_weights", "perceptual_heads")

_LEAST = {
    "model.width": 1,
    "model.fields": 1,
    "model.groups": 1,
    "model.rank": 1,
    "model.downsamples": 0,
    "model.blocks": 0,
    "model.z_channels": 1,
    "model.heads": 1,
    "model.norm_groups": 1,
    "model.codebook_size": 2,
    "loss.perceptual_weight": 0,
    "loss.ssim_weight": 0,
    "loss.kl_weight": 0,
    "loss.commitment_weight": 0,
    "loss.adversarial_weight": 0,
    "loss.adversarial_start": 0,
    "loss.adversarial_ramp": 0,
    "loss.discriminator_warmup": 0,
    "loss.r1_weight": 0,
    "loss.lecam_weight": 0,
    "discriminator.width": 1,
    "discriminator.layers": 0,
    "discriminator.fields": 1,
    "discriminator.groups": 1,
    "discriminator.rank": 1,
}


def check(config: Config, *, devices: int, processes: int = 1) -> None:
    """Check a config against itself and the devices.

    Args:
        config: the experiment.
        devices: devices over all processes.
        processes: processes of the run.

    Raises:
        PreflightError: with all problems that there are.
    """
    problems = [
        *common_problems(config, _LEAST),
        *_model(config.model, config.data.image_size),
        *_structural(config.loss, config.data.image_size),
        *_adversarial(config.loss, config.train.steps),
        *batch_problems(config, devices, processes),
        *_channels(config, config.mesh.channel, devices),
    ]
    if problems:
        raise PreflightError(*problems)


def check_files(config: Config) -> None:
    """Check that the files are there that the config needs, apart from the data.

    Raises:
        PreflightError: with all that are missing.
    """
    if problems := list(_perceptual(config.loss)):
        raise PreflightError(*problems)


def _model(model: ModelConfig, image_size: tuple[int, int]) -> Iterator[str]:
    yield from width_problems(model)
    factor = 2**model.downsamples if model.downsamples >= 0 else 1
    if any(side < 1 or side % factor for side in image_size):
        near = tuple(max(1, round(side / factor)) * factor for side in image_size)
        yield (
            f"data.image_size={image_size} must be multiples of the factor {factor} "
            f"(2**model.downsamples); the nearest is {near}"
        )


def _structural(loss: LossConfig, image_size: tuple[int, int]) -> Iterator[str]:
    if loss.ssim_weight > 0 and min(image_size) < WINDOW:
        yield (
            f"loss.ssim_weight={loss.ssim_weight} compares windows of "
            f"{WINDOW}x{WINDOW} pixels, and data.image_size={image_size} has none: "
            "set --loss.ssim-weight 0, or larger images"
        )


def _perceptual(loss: LossConfig) -> Iterator[str]:
    if not loss.perceptual_weight > 0:
        return
    name = TORCHVISION_NAMES[loss.perceptual_net]
    if not loss.perceptual_weights and store.find(name) is None:
        yield (
            f"loss.perceptual_weight={loss.perceptual_weight} needs "
            f"loss.perceptual_weights, a file of {loss.perceptual_net} weights: run "
            f"{COMMAND} get {name}, give the path of one in torchvision's layout, or "
            "set --loss.perceptual-weight 0"
        )
    paths = {field: getattr(loss, field) for field in _PERCEPTUAL_FILES}
    if paths["perceptual_heads"] == LPIPS:
        del paths["perceptual_heads"]
        heads = f"lpips_{loss.perceptual_net}"
        if store.find(heads) is None:
            yield (
                f"loss.perceptual_heads={LPIPS} are not on this machine: run "
                f"{COMMAND} get {heads}, or give the path of a file"
            )
    for field, path in paths.items():
        if path and not Path(path).is_file():
            yield f"loss.{field}={path!r} is not a file; give the path of one"


def _adversarial(loss: LossConfig, steps: int) -> Iterator[str]:
    if not loss.adversarial_weight > 0:
        for field in ("r1_weight", "lecam_weight"):
            if getattr(loss, field) > 0:
                yield (
                    f"loss.{field}={getattr(loss, field)} regularises a discriminator, "
                    "and there is none: set --loss.adversarial-weight above 0"
                )
        return
    start = as_steps(loss.adversarial_start, steps)
    warmup = as_steps(loss.discriminator_warmup, steps)
    if start >= steps:
        yield (
            f"loss.adversarial_start={loss.adversarial_start} (step {start}) is never "
            f"reached in train.steps={steps}: start earlier, or set "
            "--loss.adversarial-weight 0"
        )
    if warmup > start:
        yield (
            f"loss.discriminator_warmup={loss.discriminator_warmup} ({warmup} steps) "
            f"does not fit before loss.adversarial_start={loss.adversarial_start} "
            f"(step {start}): start later or warm up for at most {start} steps"
        )


_CUT_KINDS = ("deepprism", "prism_separable", "channel", "dense")


def _channels(config: Config, parts: int, devices: int) -> Iterator[str]:
    """What cutting the channels of feature maps asks of the network."""
    if parts <= 1 or devices % parts:
        return
    model = config.model
    asked = f"mesh.channel={parts}"
    if model.conv not in _CUT_KINDS:
        yield (
            f"{asked} cannot cut model.conv={model.conv}; choose one of "
            f"{', '.join(_CUT_KINDS)}, or --mesh.channel 1"
        )
        return
    if model.conv == "deepprism" and len(set(model.multipliers)) > 1:
        # A map twice as wide is one of two fields, and they would be cut as one.
        yield (
            f"{asked} cannot cut model.conv=deepprism where widths differ by level "
            f"(model.multipliers={model.multipliers}); choose --model.conv dense, or "
            "--mesh.channel 1"
        )
        return
    fields = model.fields if model.conv == "deepprism" else 1
    cut = fields * parts
    for name, number in (("width", model.width), ("norm_groups", model.norm_groups)):
        if number % cut:
            product = f"model.fields={fields} x {asked}" if fields > 1 else asked
            near = cut * max(round(number / cut), 1)
            yield (
                f"model.{name}={number} must be a multiple of {product}, {cut}; the "
                f"nearest is {near}"
            )
    height, width = (side // 2**model.downsamples for side in config.data.image_size)
    if model.attention and height * width % parts and model.heads % cut:
        yield (
            f"{asked} must divide the {height}x{width} positions of the latent, or set "
            "--model.no-attention"
        )
