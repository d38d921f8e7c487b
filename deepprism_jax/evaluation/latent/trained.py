"""The model of latents that a run has trained, with all that draws from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flax import nnx

from deepprism_jax.analysis.parameters import count_without_time
from deepprism_jax.diffusion.prediction import Target
from deepprism_jax.diffusion.schedules import Schedule, make_schedule
from deepprism_jax.evaluation.runs import FoundRun, find_run
from deepprism_jax.layers.functional import Functional
from deepprism_jax.models.unet import UNet
from deepprism_jax.training.ldm.config import LDMConfig
from deepprism_jax.training.ldm.system import AUTOENCODER, kept_autoencoder
from deepprism_jax.training.preflight import refusing


@dataclass(frozen=True)
class Trained:
    """A trained model of latents."""

    network: Any
    """The U-Net."""
    autoencoder: Any
    """Whose latents it draws; None where it draws pixels."""
    schedule: Schedule
    target: Target
    size: tuple[int, int]
    """Height and width of the latents that it was trained on."""
    guidable: bool = True
    """Whether labels were withheld in training."""

    @property
    def factor(self) -> int:
        """Pixels of an image a position of the latent, along each side."""
        return 1 if self.autoencoder is None else self.autoencoder.factor

    @property
    def classes(self) -> int:
        """Number of classes; 0 of an unconditional model."""
        return self.network.options["classes"]


def open_run(path: Path) -> FoundRun | None:
    """Open a run of latent diffusion, or one checkpoint of it, `RUN/checkpoints/N`.

    Returns None where it is anything else.

    Raises:
        PreflightError: it is such a run but has no checkpoint, or it is an export.
    """
    return find_run(
        path,
        LDMConfig,
        model=UNet.__name__,
        export="an exported U-Net, and has neither the autoencoder nor the noise "
        "schedule: give the work directory of its run",
    )


def load(run: FoundRun) -> Trained:
    """Load the model of a run, see `load_model`.

    Raises:
        PreflightError: it cannot be loaded.
    """
    with refusing():
        return load_model(run.workdir, run.config, run.checkpoint)


def load_model(workdir: Path, config: LDMConfig, checkpoint: Path) -> Trained:
    """Load the moving average of a U-Net, and its autoencoder.

    Args:
        workdir: of the run.
        config: of the run.
        checkpoint: the one that is meant.

    Raises:
        FileNotFoundError: the run lacks its autoencoder.
        ValueError: the files are damaged, or do not belong together.
    """
    network = UNet.from_pretrained(checkpoint)
    autoencoder = kept_autoencoder(workdir)
    if config.autoencoder.path and autoencoder is None:
        raise FileNotFoundError(
            f"the run has no {AUTOENCODER}/, which makes images of its latents; copy "
            "the whole work directory"
        )
    height, width = config.data.image_size
    channels, factor = config.data.channels, 1
    what = f"its images have {channels} channels"
    if autoencoder is not None:
        channels, factor = autoencoder.options["z_channels"], autoencoder.factor
        what = f"{workdir / AUTOENCODER} has z_channels={channels}"
    if channels != (wanted := network.options["channels"]):
        raise ValueError(
            f"{what}, and the U-Net of the run works on {wanted}: copy the "
            f"run's own {AUTOENCODER}/ back"
        )
    size = (height // factor, width // factor)
    network.check_latent((*size, channels))
    noise = config.diffusion
    schedule = make_schedule(noise.schedule, noise.times)
    guidable = noise.class_dropout > 0
    return Trained(network, autoencoder, schedule, noise.target, size, guidable)


def parameters(options: dict[str, Any]) -> tuple[int, int]:
    """Return `count_without_time` of a U-Net with these options."""
    network = Functional(nnx.eval_shape(lambda: UNet(**options, rngs=nnx.Rngs(0))))
    return count_without_time(network.parameter_shapes)
