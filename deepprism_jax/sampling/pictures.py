"""Images that the user gives: read, made to fit, coloured as the training image."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image
from skimage.exposure import match_histograms

from deepprism_jax.data.images import decode_whole, resized, to_channels
from deepprism_jax.diffusion.pyramid import Size
from deepprism_jax.sampling.options import Options
from deepprism_jax.sampling.plan import by
from deepprism_jax.training.preflight import PreflightError, refusing

Pixels = UInt8[np.ndarray, "_ _ _"]
"""An image, height, width and channels; each of its own size."""

WHITE_ABOVE = 127
"""Where a mask is brighter, of 255, it is white."""


def read_given(options: Options, channels: int) -> dict[str, Pixels]:
    """Read the images that options name, `input` and `mask`.

    Raises:
        PreflightError: one is no image.
    """
    given = {}
    with refusing():
        if options.input:
            given["input"] = decode_whole(options.input, channels)
        if options.mask:
            given["mask"] = read_mask(options.mask)
    return given


def read_mask(path: Path) -> Pixels:
    """Read a mask, uint8 [h, w, 1]; what is transparent in it is black.

    Raises:
        UnreadableImageError: the file is no image.
    """
    image = decode_whole(path, 4)
    gray = to_channels(np.ascontiguousarray(image[..., :3]), 1)
    return np.round(gray * (image[..., 3:] / 255)).astype(np.uint8)


def free_of(mask: Pixels, path: Path | None, size: Size) -> Bool[np.ndarray, "_ _"]:
    """Return where a mask is white, at the size of what is drawn.

    Raises:
        PreflightError: it is so nowhere.
    """
    if (brightest := mask.max()) <= WHITE_ABOVE:
        raise PreflightError(
            f"--mask {path} has no white, its brightest pixel is {brightest} of 255: "
            "paint white what may change"
        )
    free = resized(mask, size)[..., 0] > WHITE_ABOVE
    if not free.any():
        raise PreflightError(
            f"--mask {path}: so little is white that at {by(size)} nothing is left of "
            "it: paint more"
        )
    return free


def lines_of_given(
    options: Options, given: dict[str, Pixels], channels: int, fitted: str
) -> Iterator[str]:
    """Say what becomes of `--input` and `--mask`, where it is not what they were.

    Args:
        options: of the command line.
        given: what they name.
        channels: of the model's images.
        fitted: what became of the size; "" for nothing.
    """
    assert options.input is not None
    if said := conversion(options.input, channels):
        yield f"{options.input}: {said}"
    if fitted:
        yield fitted
    if "mask" in given and given["mask"].min() > WHITE_ABOVE:
        yield f"{options.mask} is white everywhere: all of {options.input} may change"


def size_of(image: Pixels | None) -> Size | None:
    """Return height and width of an image, where there is one."""
    return None if image is None else (image.shape[0], image.shape[1])


def conversion(path: str | Path, channels: int) -> str:
    """Say what `data.images.decode` changes of an image; "" where nothing."""
    with Image.open(path) as image:
        deep = image.mode.startswith("I")
        gray = deep or image.mode in ("1", "L", "LA")
        moving = getattr(image, "n_frames", 1) > 1
        transparent = (
            image.has_transparency_data
            and np.asarray(image.convert("RGBA"))[..., 3].min() < 255
        )
    changes = {
        "of several frames the first is taken": moving,
        "transparent parts are laid over white": transparent and channels < 4,
        "its numbers are rounded to 8 bits": deep,
        "it is gray and gets three equal channels": gray and channels > 1,
        "its colours become gray": not gray and channels == 1,
    }
    return ", ".join(words for words, true in changes.items() if true)


def with_colours_of(image: Pixels, reference: Pixels) -> Pixels:
    """Give every channel of an image the distribution of values in the reference's."""
    # Of 8-bit images it would cut off the fractions.
    matched = match_histograms(image.astype(float), reference, channel_axis=-1)
    return np.clip(np.round(matched), 0, 255).astype(np.uint8)
