"""Guides: what is done to the image that is predicted in each step of sampling.

A guide is made once, in pixels of what is drawn, and cut to size for every scale. All
of them are affine, x_0 becomes keep x_0 + add.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from skimage.filters import gaussian
from skimage.morphology import dilation, disk

from deepprism_jax.diffusion.multiscale import GuideOfScale
from deepprism_jax.diffusion.pyramid import Size, resized
from deepprism_jax.diffusion.reverse import Guide

Box = tuple[int, int, int, int]
"""Top, left, height and width, pixels."""


def region_guide(
    images: Sequence[Float[np.ndarray, "_ _ c"]],
    source: Box,
    targets: Sequence[Box],
    size: Size,
    *,
    strength: float = 0.8,
    free_scales: int = 1,
) -> GuideOfScale:
    """Return the guide that draws a part of the training image in given places.

    In every step a place is drawn towards the part of that scale's image, stretched to
    the place. So does the official program in its mode for regions of interest.

    Args:
        images: the training image at all scales, in [-1, 1].
        source: part of it, in pixels of the last scale.
        targets: places, in pixels of what is drawn; later ones cover earlier ones.
        size: of what is drawn at the last scale.
        strength: how far towards, 0 ... 1.
        free_scales: how many of the last scales are not guided, so that seams heal.

    Raises:
        ValueError: a box is empty or not inside, or the strength lies outside.
    """
    last = (images[-1].shape[0], images[-1].shape[1])
    check_box(source, last, "the training image")
    for target in targets:
        check_box(target, size, "what is drawn")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength={strength} must lie in [0, 1]")

    def guide(scale: int, at: Size) -> Guide | None:
        if scale >= len(images) - free_scales:
            return None
        image = images[scale]
        part = image[_slices(source, last, image.shape)]
        keep = np.ones((*at, 1), np.float32)
        add = np.zeros((*at, image.shape[-1]), np.float32)
        for target in targets:
            place = _slices(target, size, at)
            height, width, _ = add[place].shape
            there = resized(part, (height, width))
            add[place] = (1 - strength) * add[place] + strength * there
            keep[place] *= 1 - strength
        return Guide(keep, add)

    return guide


def feathered(
    mask: Bool[np.ndarray, "h w"], *, grow: int = 7, sigma: float = 5.0
) -> Float[np.ndarray, "h w"]:
    """Return a soft mask, float32 in [0, 1], 1 at its most.

    Args:
        mask: what may change.
        grow: radius of the disc that the mask is widened by, px.
        sigma: of the Gaussian that it is blurred with, px; 0 blurs nothing.

    Raises:
        ValueError: the mask is empty, or an option is negative.
    """
    if grow < 0 or sigma < 0:
        raise ValueError(f"grow={grow} and sigma={sigma} must be at least 0 px")
    if not mask.any():
        raise ValueError("mask is empty: mark at least one pixel that may change")
    wide = dilation(mask, disk(grow)).astype(np.float32)
    soft = gaussian(wide, sigma) if sigma > 0 else wide
    return (soft / soft.max()).astype(np.float32)


def check_box(box: Box, size: Size, where: str = "the image") -> None:
    """Refuse a box that is empty or not inside of an image.

    Raises:
        ValueError: it is.
    """
    top, left, height, width = box
    inside = top >= 0 and left >= 0 and top + height <= size[0]
    if not (inside and left + width <= size[1] and height > 0 and width > 0):
        raise ValueError(
            f"box {top} {left} {height} {width} (top left height width) must lie "
            f"inside {where}, {size[0]} x {size[1]} px, and not be empty"
        )


def _slices(box: Box, within: Size, at: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the pixels of a box at another size of its image, at least one a side."""

    def side(start: int, length: int, whole: int, new: int) -> slice:
        first = min(round(start * new / whole), new - 1)
        return slice(first, max(round((start + length) * new / whole), first + 1))

    top, left, height, width = box
    return side(top, height, within[0], at[0]), side(left, width, within[1], at[1])
