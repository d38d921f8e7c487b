"""Pictures to look at: rows of images, one row a method, one column an example."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP = 2
"""White pixels between images."""

SIDE = 64
"""Small images are enlarged to at least about this many pixels."""


def enlargement(side: int) -> int:
    """Return how many times images of so many pixels a side are enlarged."""
    return max(1, SIDE // side)


def image_grid(
    rows: Mapping[str, np.ndarray], *, scale: int = 1, captions: bool = True
) -> np.ndarray:
    """Return rows of images as one RGB picture, uint8 [height, width, 3].

    Args:
        rows: caption to uint8 images [n, h, w, c], all of one shape. One channel is
            gray, three are RGB, four are RGBA on white; of any other number the first
            three, or the first alone, are shown.
        scale: enlarge every image this many times, pixel by pixel.
        captions: write the captions to the left of the rows.

    Raises:
        ValueError: there is no image, or the shapes differ.
    """
    shapes = {name: np.shape(images) for name, images in rows.items()}
    if not shapes or len(set(shapes.values())) != 1 or 0 in next(iter(shapes.values())):
        raise ValueError(f"a grid needs rows of one shape, with images; got {shapes}")
    count, height, width, _ = next(iter(shapes.values()))
    height, width = height * scale, width * scale
    labels = {name: _caption(name) if captions else None for name in rows}
    left = max(
        (label.shape[1] for label in labels.values() if label is not None), default=0
    )
    grid = np.full(
        (len(rows) * (height + GAP) + GAP, left + count * (width + GAP) + GAP, 3),
        255,
        np.uint8,
    )
    for row, (name, images) in enumerate(rows.items()):
        top = GAP + row * (height + GAP)
        label = labels[name]
        if label is not None:
            label = label[:height]
            middle = top + (height - label.shape[0]) // 2
            grid[middle : middle + label.shape[0], : label.shape[1]] = label
        large = np.repeat(np.repeat(_rgb(np.asarray(images)), scale, 1), scale, 2)
        for column, image in enumerate(large):
            start = left + GAP + column * (width + GAP)
            grid[top : top + height, start : start + width] = image
    return grid


def save_grid(
    path: str | Path,
    rows: Mapping[str, np.ndarray],
    *,
    scale: int = 1,
    captions: bool = True,
) -> None:
    """Write `image_grid` as PNG, making its folder where there is none."""
    grid = image_grid(rows, scale=scale, captions=captions)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grid).save(path, format="PNG")


def _rgb(images: np.ndarray) -> np.ndarray:
    channels = images.shape[-1]
    if channels == 4:
        alpha = images[..., 3:].astype(np.float32) / 255.0
        on_white = images[..., :3] * alpha + 255.0 * (1.0 - alpha)
        return np.round(on_white).astype(np.uint8)
    if channels < 3:
        return np.repeat(images[..., :1], 3, axis=-1)
    return images[..., :3]


def _caption(text: str) -> np.ndarray:
    """Return black text on white, as wide and high as it is."""
    font = ImageFont.load_default()
    _, _, width, height = font.getbbox(text)
    picture = Image.new("RGB", (int(width) + 2 * GAP, int(height) + GAP), "white")
    ImageDraw.Draw(picture).text((GAP, 0), text, fill="black", font=font)
    return np.asarray(picture)
