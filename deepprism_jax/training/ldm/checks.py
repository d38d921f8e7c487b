"""What is checked of an experiment of latent diffusion before any work."""

from collections.abc import Iterator

from deepprism_jax.training.ldm.config import DenoisingConfig, LDMConfig
from deepprism_jax.training.preflight import (
    PreflightError,
    batch_problems,
    common_problems,
    width_problems,
)

_LEAST = {
    "model.width": 1,
    "model.blocks": 1,
    "model.heads": 1,
    "model.norm_groups": 1,
    "model.fields": 1,
    "model.groups": 1,
    "model.rank": 1,
    "model.classes": 0,
    "autoencoder.z_channels": 1,
    "autoencoder.factor": 1,
    "data.encode_batch": 1,
    "diffusion.times": 2,
    "diffusion.min_snr": 0,
}


def check(config: LDMConfig, *, devices: int, processes: int = 1) -> None:
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
        *_shares(config),
        *_noise(config.diffusion),
        *_sizes(config),
        *_pixels(config),
        *_mesh(config),
        *batch_problems(config, devices, processes),
    ]
    if problems:
        raise PreflightError(*problems)


def _shares(config: LDMConfig) -> Iterator[str]:
    for name, share in (
        ("model.dropout", config.model.dropout),
        ("diffusion.class_dropout", config.diffusion.class_dropout),
    ):
        if not 0 <= share < 1:
            yield f"{name}={share} must lie in [0, 1)"
    if not config.optimizer.time_ratio > 0:
        ratio = config.optimizer.time_ratio
        yield f"optimizer.time_ratio={ratio} must be a number above 0"
    if config.train.keep_best > 0:
        yield (
            f"train.keep_best={config.train.keep_best}: the loss of a denoiser does "
            "not tell which checkpoint draws best; set --train.keep-best 0"
        )


def _noise(diffusion: DenoisingConfig) -> Iterator[str]:
    if diffusion.target == "eps" and diffusion.schedule == "cosine":
        yield (
            "diffusion.target=eps with diffusion.schedule=cosine: at its last times so "
            "little is left of a latent that the errors of the noise blow up in "
            "sampling; set --diffusion.target v, or --diffusion.schedule scaled_linear"
        )


def _sizes(config: LDMConfig) -> Iterator[str]:
    model, autoencoder = config.model, config.autoencoder
    yield from width_problems(model)
    if not model.multipliers or min(model.multipliers) < 1:
        yield (
            f"model.multipliers={model.multipliers} must be positive numbers, one a "
            "level"
        )
        return
    factors = [2**level for level in range(len(model.multipliers))]
    for factor in model.attention:
        if factor not in factors:
            yield (
                f"model.attention={model.attention}: there is no level {factor} times "
                f"smaller; choose among {factors}"
            )
    if autoencoder.factor < 1:
        return
    pixels = factors[-1] * (autoencoder.factor if autoencoder.path else 1)
    size = config.data.image_size
    if any(side < 1 or side % pixels for side in size):
        near = tuple(max(1, round(side / pixels)) * pixels for side in size)
        yield (
            f"data.image_size={size} must be multiples of {pixels}, the factor of the "
            f"autoencoder times that of the U-Net; the nearest is {near}"
        )


def _pixels(config: LDMConfig) -> Iterator[str]:
    if config.data.latents and not config.autoencoder.path:
        yield (
            f"data.latents={config.data.latents!r} without an autoencoder: pixels are "
            "diffused as they are and nothing is kept; leave it out, or set "
            "--autoencoder.path"
        )


def _mesh(config: LDMConfig) -> Iterator[str]:
    if config.mesh.channel != 1:
        yield (
            f"mesh.channel={config.mesh.channel}: U-Nets are not cut along channels; "
            "set --mesh.channel 1"
        )
