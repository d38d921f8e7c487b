"""What a single-image model is asked to draw, checked before anything is loaded.

| mode | begins with | draws |
|---|---|---|
| random | noise | all scales |
| variation | the training image at the scale before | `--from-scale` and those above |
| style | `--input`, with noise | the last scale, or as variation |
| harmonise | the same | the same, and keeps what is not in the mask |
| region | as random, or as variation | the same, with the region at the boxes |
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from deepprism_jax.diffusion.guides import Box, check_box
from deepprism_jax.diffusion.multiscale import output_sizes, sizes_ending_in
from deepprism_jax.diffusion.pyramid import Size, size_within
from deepprism_jax.sampling.asked import common, sizes_of_given
from deepprism_jax.sampling.options import Options
from deepprism_jax.training.preflight import PreflightError

Mode = Literal["random", "variation", "style", "harmonise", "region"]
STYLE, HARMONISE = 0.15, 0.05
"""Default strengths, as in the official program: 15 and 5 of 100 times."""

LEAST_SIDE = 17
"""Half of the 33 pixels that the denoiser sees: in a side that is shorter, every pixel
is drawn with both edges in sight."""

MOST_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485
"""Of more, Pillow and what is built on it take an image for an attack."""


MOST_TIMES = 10_000
"""Of `--scale-mul`; images of more pixels than PNG readers take are refused anyway."""


@dataclass(frozen=True)
class Plan:
    """How to draw, in the terms of `diffusion.multiscale.sample_scales`."""

    mode: Mode
    sizes: tuple[Size, ...]
    """Of all scales."""
    first_scale: int
    begin: int | None
    """Times to go through at the first scale; None: as the process does."""
    targets: tuple[Box, ...]
    """Where the region goes."""

    @property
    def size(self) -> Size:
        """Height and width of the drawn images."""
        return self.sizes[-1]


def make_plan(
    options: Options,
    sizes: Sequence[Size],
    times: int,
    *,
    input_size: Size | None = None,
    mask_size: Size | None = None,
) -> Plan:
    """Check what is asked for against the model, and settle what is left open.

    Args:
        options: of the command line.
        sizes: height and width of the model's scales, coarsest first.
        times: of its process.
        input_size: height and width of the image that is given.
        mask_size: of the mask.

    Raises:
        PreflightError: with all problems there are, the value and the remedy.
    """
    mode = mode_of(options)
    first = options.from_scale
    if first is None:
        first = len(sizes) - 1 if mode in ("style", "harmonise") else 0
    problems = [
        *common(options),
        *_numbers(options, len(sizes), times),
        *_combinations(options, first, len(sizes)),
        *sizes_of_given(input_size, mask_size),
    ]
    if problems:
        raise PreflightError(*problems)
    drawn = output_sizes(sizes, options.scale_mul)
    if input_size:
        drawn = sizes_ending_in(sizes, _fitting(input_size, drawn[-1]))
    targets = targets_of(options)
    problems = [
        *_extent(drawn, sizes, first, options),
        *_boxes([options.roi], "--roi", sizes[-1], "the training image"),
        *_boxes(targets, "--roi-to", drawn[-1], "drawn images"),
    ]
    if problems:
        raise PreflightError(*problems)
    return Plan(mode, drawn, first, begin_of(options, times), targets)


def mode_of(options: Options) -> Mode:
    """Return the mode that options ask for."""
    if options.input:
        return "harmonise" if options.mask else "style"
    if options.roi:
        return "region"
    return "variation" if options.from_scale else "random"


def begin_of(options: Options, times: int) -> int | None:
    """Return the times that an input goes through; None where there is none."""
    if not options.input:
        return None
    default = HARMONISE if options.mask else STYLE
    strength = default if options.strength is None else options.strength
    return max(round(strength * times), 1)


def targets_of(options: Options) -> tuple[Box, ...]:
    """Return where the region goes; boxes without a size are as large as it is."""
    own = options.roi[2:]
    return tuple(as_box((*box[:2], *(box[2:] or own))) for box in options.roi_to)


def as_box(numbers: Sequence[int]) -> Box:
    """Return four numbers as a box."""
    top, left, height, width = numbers
    return top, left, height, width


def _fitting(size: Size, model: Size) -> Size:
    """Return the size that an image is shrunk to, of no more pixels than the model's.

    Where that is the model's but for the rounding, it is the model's.
    """
    fitted = size_within(*size, math.prod(model))
    near = max(abs(fitted[0] - model[0]), abs(fitted[1] - model[1])) <= 1
    return model if near and fitted != size else fitted


def _numbers(options: Options, scales: int, times: int) -> Iterator[str]:
    """What is wrong with numbers by themselves."""
    if not all(0 < multiple <= MOST_TIMES for multiple in options.scale_mul):
        yield (
            f"--scale-mul {_words(options.scale_mul)} must be two numbers above 0 and "
            f"at most {MOST_TIMES:,}"
        )
    if options.from_scale is not None and not 0 <= options.from_scale < scales:
        yield (
            f"--from-scale {options.from_scale} does not exist: the model has scales "
            f"0 ... {scales - 1}, 0 the coarsest"
        )
    if not 0 <= options.omega <= 1:
        yield f"--omega {options.omega} must lie in 0 ... 1"
    if options.times and len(options.times) != scales - 1:
        yield (
            f"--times {_words(options.times)} must be {scales - 1} numbers, one for "
            "every scale above the coarsest"
        )
    if not all(0 <= each <= times for each in options.times):
        yield f"--times {_words(options.times)} must lie in 0 ... {times}"
    if options.roi and len(options.roi) != 4:
        yield f"--roi {_words(options.roi)} must be four numbers, Y X H W"
    for box in options.roi_to:
        if len(box) not in (2, 4):
            yield f"--roi-to {_words(box)} must be two numbers or four, Y X [H W]"


def _combinations(options: Options, first: int, scales: int) -> Iterator[str]:
    """Options that need others, or exclude them."""
    if options.times and options.input and first == scales - 1:
        yield (
            f"--times is of no effect where --input is redrawn at scale {first} alone, "
            "which --strength is for: leave it out, or give a --from-scale below"
        )
    if bool(options.roi) != bool(options.roi_to):
        have, lack = ("roi", "roi-to") if options.roi else ("roi-to", "roi")
        yield f"--{have} needs --{lack}: what of the training image goes where"
    if options.roi and options.input:
        yield "--roi is drawn from noise: leave out --input"
    elif options.roi and scales == 1:
        yield (
            "--roi works at the scales before the last, and this model has one scale: "
            "train on a larger image, or with a smaller --diffusion.coarsest"
        )
    elif options.roi and first == scales - 1:
        yield (
            f"--from-scale {first} is the last, and --roi works at the scales before "
            "it: choose a coarser one"
        )


def _extent(
    sizes: Sequence[Size], own: Sequence[Size], first: int, options: Options
) -> Iterator[str]:
    """Sizes that a model cannot draw or nobody can read; its own it can."""
    size = sizes[first]
    least = min(LEAST_SIDE, *own[first])
    if min(size) < least:
        what, larger = "--input", "a larger one"
        if not options.input:
            what = f"--scale-mul {_words(options.scale_mul)}"
            larger = "larger numbers"
        higher = " or a higher --from-scale" if first < len(sizes) - 1 else ""
        yield (
            f"{what} makes scale {first} {by(size)}, and its sides must be at least "
            f"{least}: choose {larger}{higher}"
        )
    if math.prod(sizes[-1]) > MOST_PIXELS:
        yield (
            f"--scale-mul {_words(options.scale_mul)} makes images of "
            f"{by(sizes[-1])}, and {MOST_PIXELS:,} pixels are the most that PNG "
            "readers take: choose smaller numbers"
        )


def _boxes(
    boxes: Iterable[Sequence[int]], option: str, size: Size, where: str
) -> Iterator[str]:
    """Boxes that do not lie in an image."""
    for box in filter(None, boxes):
        try:
            check_box(as_box(box), size, where)
        except ValueError as error:
            yield f"{option}: {error}"


def by(size: Size) -> str:
    """Return height by width as text."""
    return f"{size[0]}x{size[1]}"


def _words(numbers: Sequence[int] | Sequence[float]) -> str:
    return " ".join(
        f"{number:g}" if isinstance(number, float) else str(number)
        for number in numbers
    )
