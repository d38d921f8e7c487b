"""How much of an image is lost from one scale to the next, and what follows from it.

Beyond a scale's time T_s the noise hides what its image has and the enlarged one of the
scale before has not. So diffusion begins there, and up to there the image gives way to
the enlarged one (SinDDM: Kulikov et al., 2022, section 3).
"""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int
from PIL import Image as Pillow

from deepprism_jax.diffusion.pyramid import Pyramid, Size
from deepprism_jax.diffusion.schedules import Schedule

Reading = Literal["program", "area", "paper", "rms"]

_AT_FIRST = 1.1


def rescale_losses(
    pyramid: Pyramid, reading: Reading = "area"
) -> Float[np.ndarray, " s"]:
    """Return the distance r_s of each scale's image from the enlarged one; r_0 = 0.

    | reading | r_s, from the difference d of n numbers |
    |---|---|
    | `program` | norm(d) / n, d of 8-bit numbers that wraps at 256: the official one |
    | `area` | 1.1 at s = 1, then as 1 / sqrt(h w): about what that comes to |
    | `paper` | norm(d) / n, d of numbers 0 ... 255, that does not wrap |
    | `rms` | norm(d) / sqrt(n), d of numbers in [-1, 1], as those that are noised |

    Differences of sign -1 wrap to large numbers, so that the official one measures how
    many pixels there are: 84 ... 100 / sqrt(h w) on four of its images. `area` says so.

    Raises:
        ValueError: the reading is unknown.
    """
    if reading not in get_args(Reading):
        known = list(get_args(Reading))
        raise ValueError(f"reading={reading!r} is unknown; choose one of {known}")
    pairs = list(zip(pyramid.images, pyramid.enlarged, strict=True))[1:]
    if reading == "program":
        in_bytes = [_to_bytes(image) for image in pyramid.images]
        losses = [
            _norm(image - _enlarged_bytes(before, size)) / image.size
            for before, image, size in zip(
                in_bytes[:-1], in_bytes[1:], pyramid.sizes[1:], strict=True
            )
        ]
    elif reading == "area":
        areas = np.prod(pyramid.sizes, axis=1)[1:]
        losses = _AT_FIRST * np.sqrt(areas[:1] / areas)
    elif reading == "paper":
        losses = [_norm((x - y) * 127.5) / x.size for x, y in pairs]
    else:
        losses = [_norm(x - y) / np.sqrt(x.size) for x, y in pairs]
    return np.array([0.0, *losses])


def starts_of(
    losses: Float[np.ndarray, " s"], schedule: Schedule
) -> Int[np.ndarray, " s"]:
    """Return T_s: the first time whose sigma / alpha exceeds r_s, and T at scale 0."""
    noise = _noise(schedule)
    starts = np.searchsorted(noise, losses[1:], side="right")
    return np.array([len(noise), *np.clip(starts, 1, len(noise))], np.int32)


def blur_of(
    losses: Float[np.ndarray, " s"], schedule: Schedule
) -> Float[np.ndarray, "s t"]:
    """Return gamma = sigma / (alpha r_s), at most 1; row 0, the coarsest, is 0."""
    most = np.maximum(losses[1:, None], np.finfo(np.float32).tiny)
    blur = np.minimum(_noise(schedule) / most, 1.0)
    return np.vstack([np.zeros(schedule.steps), blur]).astype(np.float32)


def _noise(schedule: Schedule) -> np.ndarray:
    sigma = np.asarray(schedule.sigma, np.float64)
    return sigma / np.asarray(schedule.alpha, np.float64)


def _norm(x: np.ndarray) -> float:
    return float(np.linalg.norm(x.astype(np.float64)))


def _to_bytes(x: np.ndarray) -> np.ndarray:
    return np.rint((x + 1) * 127.5).astype(np.uint8)


def _enlarged_bytes(image: np.ndarray, size: Size) -> np.ndarray:
    planes = [Pillow.fromarray(plane) for plane in np.moveaxis(image, -1, 0)]
    wide = (size[1], size[0])
    resized = [plane.resize(wide, Pillow.Resampling.BILINEAR) for plane in planes]
    return np.stack([np.asarray(plane) for plane in resized], axis=-1)
