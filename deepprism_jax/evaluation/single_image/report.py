"""Tables and a picture of models of one image: a row each, their mean first."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from deepprism_jax.data.images import to_pillow
from deepprism_jax.evaluation.table4 import Row
from deepprism_jax.files import replacing
from deepprism_jax.metrics.state import Score
from deepprism_jax.training.grids import image_grid

SHOWN = 7
"""Samples in the picture beside each training image."""

MOST_ROWS = 16
"""Training images in the picture."""

SIDE = 256
"""Larger images are shrunk in the picture."""

KIND = "samples of single images"
"""What the figures are of, so that they are not compared with others."""


def with_mean(rows: Sequence[Row]) -> list[Row]:
    """Put the mean over training images before the rows, where they are several.

    A figure that a row lacks is not counted in its mean. The ± is over images.
    """
    if len(rows) < 2:
        return list(rows)
    names = dict.fromkeys(name for row in rows for name in row.scores)
    scores = {
        name: _mean([row.scores[name] for row in rows if name in row.scores])
        for name in names
    }
    counts = {row.parameters for row in rows}
    parameters = counts.pop() if len(counts) == 1 else None
    return [Row(f"mean of {len(rows)} images", scores, parameters, None), *rows]


def _mean(scores: Sequence[Score]) -> Score:
    values = [score.value for score in scores]
    if not any(score.count for score in scores):  # counted, not measured
        return Score(float(np.mean(values)), None, 0, "")
    return Score(
        float(np.mean(values)),
        float(np.std(values)),
        len(values),
        "training images",
    )


def picture(
    rows: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> UInt8[np.ndarray, "h w 3"]:
    """Return training images, each with its samples to the right.

    Args:
        rows: caption to the image uint8 [h, w, c] and its samples uint8 [n, h, w, c],
            which may be of another size; they then stand below it.

    Raises:
        ValueError: there is nothing to show.
    """
    if not rows:
        raise ValueError("there is no picture: no sample was measured")
    panels: list[np.ndarray] = []
    for name, (image, samples) in rows.items():
        if image.shape == samples.shape[1:]:
            panels.append(_panel({name: np.concatenate([image[None], samples])}))
        else:
            panels += [_panel({name: image[None]}), _panel({"samples": samples})]
    width = max(panel.shape[1] for panel in panels)
    return np.concatenate([_widened(panel, width) for panel in panels])


def save_picture(path: Path, rows: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Write `picture` as PNG, whole or not at all.

    Raises:
        OSError: it cannot be written; what was there before is intact.
    """
    image = Image.fromarray(picture(rows))
    with replacing(path) as part:
        image.save(part, format="PNG")


def _panel(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    shown = {
        name: np.stack([_small(x) for x in images]) for name, images in rows.items()
    }
    side = max(next(iter(shown.values())).shape[1:3])
    return image_grid(shown, scale=max(1, SIDE // (2 * side)))


def _small(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    shrink = math.ceil(max(height, width) / SIDE)
    if shrink == 1:
        return image
    small = np.asarray(to_pillow(image).reduce(shrink))
    return small.reshape(*small.shape[:2], -1)


def _widened(panel: np.ndarray, width: int) -> np.ndarray:
    missing = width - panel.shape[1]
    return np.pad(panel, ((0, 0), (0, missing), (0, 0)), constant_values=255)
