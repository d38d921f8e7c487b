"""`per_image.csv`: every figure of every image, written while they are measured."""

import csv
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from deepprism_jax.files import replacing


class PerImage:
    """Writes one line an image; used in a `with` block, whose end names the file.

    Nothing is kept in memory. A block that raises leaves what the file held before.

    Args:
        path: the file.
        metrics: names of the figures, in the order of the columns.
    """

    def __init__(self, path: str | Path, metrics: Sequence[str]):
        self._path, self._metrics = path, list(metrics)
        self._stack = ExitStack()

    def __enter__(self) -> "PerImage":
        with ExitStack() as stack:
            part = stack.enter_context(replacing(self._path))
            file = stack.enter_context(part.open("w", encoding="utf-8", newline=""))
            self._writer = csv.writer(file, lineterminator="\n")
            self._writer.writerow(["index", *self._metrics])
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised: Any) -> bool | None:
        return self._stack.__exit__(*raised)

    def add(
        self, indices: Any, values: Mapping[str, Any], mask: Any | None = None
    ) -> None:
        """Append the figures of a batch, in full.

        Args:
            indices: whole numbers [b], the places of the images in their split.
            values: metric to numbers [b]; a metric that is left out has empty fields.
            mask: False [b] where an image only fills up the batch, which has no line.

        Raises:
            ValueError: a metric has no column, or not one number an image.
        """
        indices = np.asarray(indices)
        columns = {name: np.asarray(numbers) for name, numbers in values.items()}
        for name, numbers in columns.items():
            if name not in self._metrics:
                raise ValueError(f"{name!r} is none of the columns {self._metrics}")
            if numbers.shape != indices.shape:
                raise ValueError(
                    f"{name!r} has shape {numbers.shape}, not one number for each of "
                    f"the {len(indices)} images"
                )
        counted = np.arange(len(indices)) if mask is None else np.flatnonzero(mask)
        for place in counted:
            # NumPy writes as many digits as tell float32 numbers apart, and no more.
            figures = (
                str(columns[name][place]) if name in columns else ""
                for name in self._metrics
            )
            self._writer.writerow([int(indices[place]), *figures])
