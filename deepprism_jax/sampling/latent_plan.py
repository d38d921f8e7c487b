"""What a model of latents is asked to draw, checked before anything is drawn.

| mode | begins with | draws |
|---|---|---|
| random | noise | all |
| variation | `--input`, with noise | all |
| inpaint | the same, or noise | what is white in the mask |
"""

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from deepprism_jax.diffusion.pyramid import Size, size_within
from deepprism_jax.diffusion.samplers import SamplerName
from deepprism_jax.evaluation.latent import ways
from deepprism_jax.evaluation.latent.ways import Way, steps_of
from deepprism_jax.sampling.asked import common, sizes_of_given
from deepprism_jax.sampling.options import Options
from deepprism_jax.sampling.plan import MOST_PIXELS, by
from deepprism_jax.training.preflight import PreflightError

LatentMode = Literal["random", "variation", "inpaint"]

VARIATION = 0.6
"""Default strength without a mask."""

REPEATS = 4
"""Default repeats with a mask."""


@dataclass(frozen=True)
class Abilities:
    """What a model can draw."""

    times: int
    """Of its schedule."""
    size: Size
    """Of the images that it was trained on, pixels."""
    autoencoder_factor: int
    """Pixels a position of the latent, along a side."""
    unet_factor: int
    """Of which the latent's sides are multiples."""
    classes: tuple[str, ...] = ()
    """Names; () of an unconditional model."""
    guidable: bool = True
    """Whether labels were withheld in training."""

    @property
    def unit(self) -> int:
        """Pixels that the sides of an image are multiples of."""
        return self.autoencoder_factor * self.unet_factor


@dataclass(frozen=True)
class LatentPlan:
    """How to draw, in the terms of `training.ldm.drawing`."""

    mode: LatentMode
    size: Size
    """Of the images, pixels."""
    sampler: SamplerName
    steps: int
    """Of the whole way from noise, of which an input goes a part."""
    eta: float
    guidance: float
    repeats: int
    strength: float
    labels: tuple[int, ...]
    """Of the classes, which take turns; () of an unconditional model."""

    def label_of(self, seed: int) -> int:
        """Return the class of a seed, whatever else is drawn; -1 for none."""
        return self.labels[seed % len(self.labels)] if self.labels else -1


def make_latent_plan(
    options: Options,
    can: Abilities,
    *,
    input_size: Size | None = None,
    mask_size: Size | None = None,
) -> LatentPlan:
    """Check what is asked for against the model, and settle what is left open.

    Args:
        options: of the command line.
        can: what the model is able to.
        input_size: height and width of the image that is given.
        mask_size: of the mask.

    Raises:
        PreflightError: with all problems there are, the value and the remedy.
    """
    sampler: SamplerName = options.sampler
    steps = steps_of(sampler, options.steps, can.times)
    strength = options.strength
    if strength is None:
        strength = VARIATION if options.input and not options.mask else 1.0
    labels, of_classes = _labels(options.classes, can.classes)
    size = _size(options, can, input_size)
    problems = [
        *common(options),
        *sizes_of_given(input_size, mask_size),
        *_numbers(options, can, steps, strength),
        *of_classes,
        *_extent(size, can),
    ]
    if problems:
        raise PreflightError(*problems)
    return LatentPlan(
        mode="inpaint" if options.mask else "variation" if options.input else "random",
        size=size,
        sampler=sampler,
        steps=steps,
        eta=options.eta,
        guidance=options.guidance,
        repeats=options.repeats or (REPEATS if options.mask else 1),
        strength=strength,
        labels=labels,
    )


def _size(options: Options, can: Abilities, input_size: Size | None) -> Size:
    """Return the size asked for, or the input's within the model's pixels."""
    if options.size:
        return options.size
    if input_size is None:
        return can.size
    inside = size_within(*input_size, math.prod(can.size))
    return nearest(inside, can.unit)


def nearest(size: Size, unit: int) -> Size:
    """Return the size of multiples of a unit that is nearest, at least one a side."""
    height, width = (max(round(side / unit), 1) * unit for side in size)
    return height, width


def _numbers(
    options: Options, can: Abilities, steps: int, strength: float
) -> Iterator[str]:
    way = Way(options.sampler, steps, options.eta, options.guidance)
    yield from ways.problems(way, can.times, len(can.classes), guidable=can.guidable)
    if 1 <= steps <= can.times and 0 < strength <= 1 and round(strength * steps) == 0:
        yield (
            f"--strength {strength:g} of {steps} steps is none: choose at least "
            f"{1 / steps:.2g}, or more --steps"
        )
    if options.repeats is not None and options.repeats < 1:
        yield f"--repeats {options.repeats} must be at least 1"
    if options.repeats is not None and not options.mask:
        yield "--repeats fits what is new to what is known: give --input and --mask too"


def _extent(size: Size, can: Abilities) -> Iterator[str]:
    height, width = size
    if min(size) < 1 or height % can.unit or width % can.unit:
        near = nearest(size, can.unit)
        yield (
            f"--size {height} {width} must be multiples of {can.unit}, the "
            f"autoencoder's {can.autoencoder_factor} times the U-Net's "
            f"{can.unet_factor}; the nearest is {near[0]} {near[1]}"
        )
    elif math.prod(size) > MOST_PIXELS:
        yield (
            f"--size {height} {width} makes images of {by(size)}, and {MOST_PIXELS:,} "
            "pixels are the most that PNG readers take: choose smaller numbers"
        )


def _labels(
    asked: Sequence[str], names: Sequence[str]
) -> tuple[tuple[int, ...], list[str]]:
    """Return labels of classes given by name or number, and what is wrong with them."""
    if not asked:
        return tuple(range(len(names))), []
    if not names:
        return (), [
            f"--classes {' '.join(asked)}: the model knows no classes; leave it out"
        ]
    labels, problems = [], []
    for text in asked:
        if text in names:
            labels.append(names.index(text))
        elif text.isdecimal() and int(text) < len(names):
            labels.append(int(text))
        else:
            problems.append(f"--classes {text}: {_hint(text, names)}")
    return tuple(labels), problems


def _hint(text: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(text, names, n=1)
    number = text.removeprefix("-").isdecimal()
    if near and not number:
        return f"perhaps you meant {near[0]}"
    some = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"the model knows 0 ... {len(names) - 1}, {some}"
