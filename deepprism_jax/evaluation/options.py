"""What the command line of `eval.py` can ask for."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from deepprism_jax.diffusion.samplers import SamplerName
from deepprism_jax.metrics.inception_score import SPLITS
from deepprism_jax.metrics.kid import SUBSET_SIZE
from deepprism_jax.training.preflight import PreflightError


@dataclass(frozen=True)
class Options:
    """What to measure, on which images, by which metrics."""

    subject: Annotated[
        Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="SUBJECT")
    ] = None
    """Work directory of a run, exported model, or folder of generated images."""
    pretrained: Annotated[str, tyro.conf.arg(metavar="NAME")] = ""
    """Instead: a model of the package, see `python -m deepprism_jax.weights models`."""
    compare: tuple[Path, ...] = ()
    """Instead: put runs that were evaluated side by side, with the paper's Table 4."""
    real: Path | None = None
    """Training image of the samples in SUBJECT, of a model of one image."""
    samples: int | None = None
    """Samples to draw of a diffusion model; left out, 10,000, or 16 of one image's."""
    seed: int = 0
    """Seed of the first sample; `sample.py` draws the same ones by it."""
    sampler: SamplerName = "ddim"
    """How latents are drawn, see `sample.py`."""
    steps: int | None = None
    """Steps of the sampler; left out, ddim takes 50, ddpm 250, the others 25."""
    eta: float = 0.0
    """Noise that `--sampler ddim` draws anew in each step, 0 to 1, which is ddpm."""
    guidance: float = 1.0
    """How far towards the class; 1 is what was learned, above it is exaggerated."""
    source: Literal["photos", "folder", "cifar10", "tfds"] | None = None
    """Source of the images. Data options left out are those of the training run."""
    path: str | None = None
    """Folder of images, CIFAR-10 directory, or TFDS `data_dir`."""
    name: str | None = None
    """TFDS data set name."""
    split: str | None = None
    """Split to evaluate on."""
    train_split: str | None = None
    """Split that PCA is fitted on."""
    image_size: tuple[int, int] | None = None
    """Height and width; the model takes any that its factor divides."""
    limit: int = 0
    """Evaluate this many images, evenly spaced over their split; 0 takes all."""
    batch_size: int = 0
    """Images a batch; 0 chooses 128 of 32x32 a device, fewer where they are larger."""
    metrics: tuple[str, ...] = ()
    """What to measure; left out, all that the images and the weights at hand allow."""
    kid_subset: int = SUBSET_SIZE
    """Images in each of the 100 subsets of KID."""
    splits: int = SPLITS
    """Splits of the inception score."""
    baselines: bool = True
    """Measure bicubic down-up and PCA too."""
    baseline_features: bool = False
    """Show their images to the feature networks too (IS, FID, KID, ...)."""
    reference: Path | None = None
    """File of statistics to compare with, instead of the images evaluated on."""
    save_reference: Path | None = None
    """Write statistics and features of the images evaluated on to this file."""
    cache: bool = True
    """Keep features of the images evaluated on for the next evaluation."""
    extremes: int = 8
    """Worst and best images in the picture `extremes.png`."""
    output: Path | None = None
    """Directory of results; left out, SUBJECT, or SUBJECT-eval if that is no run."""


OF_DRAWING = ("real", "samples", "seed", "sampler", "steps", "eta", "guidance")
"""Options of models that draw, and of their samples."""


def refuse_all_but(options: Options, names: Iterable[str], what: str) -> None:
    """Refuse options that would be of no effect, if they were given.

    Args:
        options: of the command line.
        names: fields that are of effect.
        what: words for what is evaluated.

    Raises:
        PreflightError: one was given.
    """
    known = set(names)
    refuse(options, [f.name for f in fields(options) if f.name not in known], what)


def refuse(options: Options, names: Iterable[str], what: str) -> None:
    """Refuse these options, if they were given; see `refuse_all_but`.

    Raises:
        PreflightError: one was given.
    """
    defaults = {field.name: field.default for field in fields(options)}
    for name in names:
        if getattr(options, name) != defaults[name]:
            option = name.replace("_", "-")
            raise PreflightError(f"--{option} is of no effect on {what}: leave it out")


LAST_SEED = 2**31 - 1


def check_seeds(options: Options, count: int) -> None:
    """Refuse seeds, samples or batches out of range.

    Raises:
        PreflightError: for the first of them.
    """
    values = {"samples": count, "batch-size": options.batch_size, "seed": options.seed}
    for (name, value), least in zip(values.items(), (1, 0, 0), strict=True):
        if value < least:
            raise PreflightError(f"--{name} {value} must be at least {least}")
    if options.seed + count - 1 > LAST_SEED:
        raise PreflightError(f"--seed {options.seed} must stay below {LAST_SEED:,}")
