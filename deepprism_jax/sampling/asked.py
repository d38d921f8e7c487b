"""What is checked of options whatever kind of model draws."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import NamedTuple

from deepprism_jax.evaluation.options import LAST_SEED
from deepprism_jax.sampling.options import Options


class Own(NamedTuple):
    """Options that are for one kind of model alone."""

    models: str
    """The models, in words."""
    names: tuple[str, ...]


OWN: Mapping[str, Own] = {
    "sinddm": Own(
        "single-image models",
        (
            "image",
            "scale_mul",
            "from_scale",
            "match_histogram",
            "roi",
            "roi_to",
            "times",
            "omega",
        ),
    ),
    "ldm": Own(
        "latent diffusion",
        ("sampler", "steps", "eta", "guidance", "classes", "size", "repeats"),
    ),
}
"""By the kind of run."""


def foreign(options: Options, kind: str) -> Iterator[str]:
    """Name the options that are for other kinds of models than this one."""
    usual = {field.name: field.default for field in fields(Options)}
    for other, (models, names) in OWN.items():
        for name in names:
            if other != kind and getattr(options, name) != usual[name]:
                yield (
                    f"--{name.replace('_', '-')} is for {models}, and this is a run of "
                    f"the kind {kind}: leave it out"
                )


def common(options: Options) -> Iterator[str]:
    """What is wrong with options that all kinds of models know."""
    if options.count < 1:
        yield f"--count {options.count} must be at least 1"
    last = options.seed + options.count - 1
    if not 0 <= options.seed <= last <= LAST_SEED and options.count >= 1:
        yield f"--seed {options.seed}: seeds must lie in 0 ... {LAST_SEED}"
    if options.batch < 0:
        yield f"--batch {options.batch} must be at least 1, or 0 to choose"
    if options.strength is not None and not 0 < options.strength <= 1:
        yield f"--strength {options.strength} must lie above 0 and at most at 1"
    for name, value in (("mask", options.mask), ("strength", options.strength)):
        if value is not None and not options.input:
            yield f"--{name} is for an image of yours: give --input too"


def sizes_of_given(
    input_size: tuple[int, int] | None, mask_size: tuple[int, int] | None
) -> Iterator[str]:
    """What is wrong with the sizes of the images that are given."""
    if mask_size and input_size and mask_size != input_size:
        mask, image = (f"{size[0]}x{size[1]}" for size in (mask_size, input_size))
        yield (
            f"--mask is {mask} and --input {image}: draw the mask on an image of that "
            "size"
        )
