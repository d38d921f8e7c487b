"""How a model of latents is drawn from, by whatever program, and what it cannot do."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from deepprism_jax.diffusion.samplers import SamplerName

STEPS = {"ddpm": 250, "ddim": 50, "heun": 25, "dpmpp_2m": 25}
"""Of each sampler, where they are left open; of a model with fewer times, all."""

POSITIONS_AT_ONCE = 2**16
"""Positions of latents that a device draws together. XLA plans 0.45 GB of memory for
them at a width of 256 on a CPU, dense or not, and twice that with guidance."""

PIXELS_AT_ONCE = 2**17
"""Pixels of images that a device decodes together: 0.38 GB by the same measure."""


@dataclass(frozen=True)
class Way:
    """How samples are drawn."""

    sampler: SamplerName
    steps: int
    eta: float
    guidance: float


def steps_of(sampler: SamplerName, asked: int | None, times: int) -> int:
    """Return the steps asked for, or those of the sampler, or all of few times."""
    return min(STEPS[sampler], times) if asked is None else asked


def problems(
    way: Way, times: int, classes: int, *, guidable: bool = True
) -> Iterator[str]:
    """Say why a model cannot be drawn from in a way, with the value and the remedy.

    Args:
        way: as the command line asks for it.
        times: of the schedule that the model was trained for.
        classes: that it knows.
        guidable: it has learned to do without them too.
    """
    if not 1 <= way.steps <= times:
        yield (
            f"--steps {way.steps} must lie in 1 ... {times}, the times that the model "
            "was trained for"
        )
    if not 0 <= way.eta <= 1:
        yield f"--eta {way.eta} must lie in 0 ... 1"
    if way.eta and way.sampler != "ddim":
        yield f"--eta is for --sampler ddim, and this is {way.sampler}: leave it out"
    if not (math.isfinite(way.guidance) and way.guidance >= 0):
        yield f"--guidance {way.guidance:g} must be a number from 0 up"
    elif way.guidance != 1 and not classes:
        yield (
            f"--guidance {way.guidance:g} needs classes, and the model knows none: "
            "leave it out"
        )
    elif way.guidance != 1 and not guidable:
        yield (
            f"--guidance {way.guidance:g} needs a model that was trained without "
            "classes too, by --diffusion.class-dropout above 0: leave it out"
        )
