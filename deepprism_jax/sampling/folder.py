"""The folder of drawn images: one that is new, and every file whole or not there.

FOLDER/0000.png ...     one image each, named by its seed
       grid.png         all side by side
       samples.npz      all as one array, on request
       samples.json     what drew them; written last
"""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepprism_jax.data.images import resized, to_pillow
from deepprism_jax.diffusion.pyramid import size_within
from deepprism_jax.files import replacing, write_text
from deepprism_jax.sampling.pictures import Pixels
from deepprism_jax.training.grids import save_grid

DRAWN = "drawn"
"""Folder in a work directory for what is drawn of its models."""
GRID, RECORD, ARRAYS = "grid.png", "samples.json", "samples.npz"

GRID_PIXELS = 16_000_000
"""Images are shrunk for a grid that would have more."""


def name_of(seed: int) -> str:
    """Return the name of the image of a seed."""
    return f"{seed:04}.png"


def make_next_folder(run: Path) -> Path:
    """Make `RUN/drawn/NUMBER`, the first after all that are there, and return it.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        numbers = [int(p.name) for p in (run / DRAWN).glob("*") if p.name.isdecimal()]
        path = run / DRAWN / f"{max(numbers, default=-1) + 1:04}"
        with contextlib.suppress(FileExistsError):  # another process was faster
            path.mkdir(parents=True)
            return path


def check_folder(path: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        FileExistsError: it does, or is a file.
    """
    if path.is_dir() and any(path.iterdir()):
        what = "images drawn before" if (path / RECORD).exists() else "something else"
        raise FileExistsError(
            f"--output {path} holds {what}: choose a new folder, or leave it out for "
            "the next number in the work directory"
        )
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"--output {path} is a file: choose a new folder")


def save_image(path: Path, pixels: Pixels) -> None:
    """Write uint8 [h, w, 1, 3 or 4] as PNG, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as part:
        to_pillow(pixels).save(part, format="PNG")


def save_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write `samples.json` into a folder."""
    write_text(path / RECORD, json.dumps(record, indent=2) + "\n")


def thumbnail(image: Pixels, count: int) -> Pixels:
    """Return an image as it stands in a grid of that many."""
    height, width = image.shape[:2]
    return resized(image, size_within(height, width, GRID_PIXELS // count))


def columns_of(count: int, size: tuple[int, int]) -> int:
    """Return how many images of (height, width) stand side by side in a square grid."""
    height, width = size
    return min(max(round(math.sqrt(count * height / width)), 1), count)


def save_arrays(
    path: Path, images: Sequence[Pixels], seeds: np.ndarray, labels: Sequence[int]
) -> None:
    """Write `samples.npz` into a folder: `images`, `seeds` and, if any, `labels`.

    Raises:
        OSError: it cannot be written.
    """
    arrays: dict[str, Any] = {"images": np.stack(images), "seeds": seeds}
    if labels:
        arrays["labels"] = np.asarray(labels)
    with replacing(path / ARRAYS) as part, part.open("wb") as file:
        np.savez(file, **arrays)


def write_grid(
    folder: Path, images: Sequence[Pixels], rows: Sequence[str] = ()
) -> None:
    """Write images of one size into `grid.png`, rows filled up with white.

    Args:
        folder: where to.
        images: in order.
        rows: name of the row that each belongs to; without names they follow one
            another row by row.
    """
    if len(set(rows)) > 1:
        named: dict[str, list[Pixels]] = {}
        for name, image in zip(rows, images, strict=True):
            named.setdefault(name, []).append(image)
        longest = max(map(len, named.values()))
        blank = np.full_like(images[0], 255)
        filled_rows = {
            name: np.stack([*row, *[blank] * (longest - len(row))])
            for name, row in named.items()
        }
        with replacing(folder / GRID) as part:
            save_grid(part, filled_rows)
        return
    columns = columns_of(len(images), images[0].shape[:2])
    missing = -len(images) % columns
    filled = [*images, *[np.full_like(images[0], 255)] * missing]
    lines = {
        str(start): np.stack(filled[start : start + columns])
        for start in range(0, len(filled), columns)
    }
    with replacing(folder / GRID) as part:
        save_grid(part, lines, captions=False)
