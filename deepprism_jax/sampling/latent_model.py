"""The model of latents in the work directory of a run, and its autoencoder."""

from dataclasses import dataclass
from typing import Any

from deepprism_jax.diffusion.prediction import Target
from deepprism_jax.diffusion.schedules import Schedule, make_schedule
from deepprism_jax.models.unet import UNet
from deepprism_jax.sampling.latent_plan import Abilities
from deepprism_jax.sampling.runs import Run, checkpoint_of
from deepprism_jax.training.ldm.system import (
    AUTOENCODER,
    CLASSES,
    kept_autoencoder,
    kept_classes,
)


@dataclass(frozen=True)
class LatentModel:
    """A trained model of latents."""

    name: str
    """Of its run."""
    step: int
    """Training step of its checkpoint."""
    network: Any
    """The U-Net."""
    autoencoder: Any
    """Whose latents it draws; None where it draws pixels."""
    schedule: Schedule
    target: Target
    channels: int
    """Of its images."""
    can: Abilities


def load_latent_model(run: Run) -> LatentModel:
    """Load the newest readable checkpoint of a run, or the one that is meant.

    Raises:
        FileNotFoundError: there is no checkpoint that can be read, or the run lacks its
            autoencoder.
        ValueError: the files are damaged, or do not belong together.
    """
    config, where = run.config, checkpoint_of(run)
    network = UNet.from_pretrained(where)
    autoencoder = kept_autoencoder(run.workdir)
    if config.autoencoder.path and autoencoder is None:
        raise FileNotFoundError(
            f"the run has no {AUTOENCODER}/, which makes images of its latents; copy "
            "the whole work directory"
        )
    channels, factor = config.data.channels, 1
    if autoencoder is not None:
        channels, factor = autoencoder.options["image_channels"], autoencoder.factor
    check_channels(run, network, autoencoder, channels)
    noise = config.diffusion
    return LatentModel(
        name=run.workdir.absolute().name,
        step=int(where.name),
        network=network,
        autoencoder=autoencoder,
        schedule=make_schedule(noise.schedule, noise.times),
        target=noise.target,
        channels=channels,
        can=Abilities(
            times=noise.times,
            size=tuple(config.data.image_size),
            autoencoder_factor=factor,
            unet_factor=network.factor,
            classes=_class_names(run, network.options["classes"]),
            guidable=noise.class_dropout > 0,
        ),
    )


def check_channels(run: Run, network: Any, autoencoder: Any, channels: int) -> None:
    """Check that a U-Net and an autoencoder work on the same latents.

    Raises:
        ValueError: they have other channels.
    """
    there = channels if autoencoder is None else autoencoder.options["z_channels"]
    wanted = network.options["channels"]
    if there != wanted:
        what = (
            f"{run.workdir / AUTOENCODER} has z_channels={there}"
            if autoencoder
            else f"its images have {there} channels"
        )
        raise ValueError(
            f"{what}, and the U-Net of the run works on {wanted}: copy the run's own "
            f"{AUTOENCODER}/ back"
        )


def _class_names(run: Run, classes: int) -> tuple[str, ...]:
    """Return as many names as the U-Net has classes; numbers where none are kept."""
    names = kept_classes(run.workdir) if classes else ()
    if not names:
        return tuple(map(str, range(classes)))
    if len(names) != classes:
        raise ValueError(
            f"{run.workdir / CLASSES} has {len(names)} names for {classes} classes of "
            "the U-Net: copy the run's own back, or delete it"
        )
    return names
