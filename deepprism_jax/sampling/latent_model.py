"""The model of latents in the work directory of a run, and its autoencoder."""

from dataclasses import dataclass
from typing import Any

from deepprism_jax.diffusion.prediction import Target
from deepprism_jax.diffusion.schedules import Schedule
from deepprism_jax.evaluation.latent.trained import load_model
from deepprism_jax.sampling.latent_plan import Abilities
from deepprism_jax.sampling.runs import Run, checkpoint_of
from deepprism_jax.training.ldm.system import CLASSES, kept_classes


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
    trained = load_model(run.workdir, config, where)
    network, autoencoder = trained.network, trained.autoencoder
    channels = config.data.channels
    if autoencoder is not None:
        channels = autoencoder.options["image_channels"]
    return LatentModel(
        name=run.workdir.absolute().name,
        step=run.step_of(where),
        network=network,
        autoencoder=autoencoder,
        schedule=trained.schedule,
        target=trained.target,
        channels=channels,
        can=Abilities(
            times=trained.schedule.steps,
            size=tuple(config.data.image_size),
            autoencoder_factor=trained.factor,
            unet_factor=network.factor,
            classes=_class_names(run, trained.classes),
            guidable=trained.guidable,
        ),
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
