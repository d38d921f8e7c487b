"""The images that a model reconstructs worst and best, and a picture of them."""

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from deepprism_jax.evaluation.table4 import column, format_value
from deepprism_jax.files import replacing
from deepprism_jax.training.grids import GAP, image_grid

RANKED_BY = ("lpips_squeeze", "lpips_vgg", "lpips_alex", "psnr")
"""The first of these that is measured tells good images from bad ones."""

SIDE = 96
"""Images are enlarged to at least about this many pixels, as wide as a caption."""

_FONT_SIZE, _LINE = 13, 16
_MARGIN = 8


class Case(NamedTuple):
    """One image, and what became of it."""

    index: int
    """Its place in the split."""
    value: float
    image: np.ndarray
    reconstruction: np.ndarray


@dataclass(frozen=True)
class Extremes:
    """The `keep` worst and best cases of all that were seen, both ordered from there.

    Of equal values the lower index comes first; NaN is worse than any number. No more
    than these cases are held, however many were seen.
    """

    metric: str
    keep: int
    worst: tuple[Case, ...] = ()
    best: tuple[Case, ...] = ()

    def add(
        self,
        indices: Any,
        values: Any,
        images: Any,
        reconstructions: Any,
        mask: Any | None = None,
    ) -> "Extremes":
        """Return the extremes of these and of a batch.

        Args:
            indices: whole numbers [b], the places of the images in their split.
            values: their figures [b] by the metric.
            images: uint8 [b, h, w, c].
            reconstructions: uint8 [b, h, w, c].
            mask: False [b] where an image only fills up the batch.
        """
        indices, values = np.asarray(indices), np.asarray(values)
        images, reconstructions = np.asarray(images), np.asarray(reconstructions)
        counted = range(len(values)) if mask is None else np.flatnonzero(mask)
        cases = [
            Case(int(indices[i]), float(values[i]), images[i], reconstructions[i])
            for i in counted
        ]
        return self._with(cases, cases)

    def merge(self, other: "Extremes") -> "Extremes":
        """Return the extremes of both parts together.

        Raises:
            ValueError: they are of different metrics or lengths.
        """
        if (self.metric, self.keep) != (other.metric, other.keep):
            raise ValueError(
                f"the {other.keep} extremes by {other.metric} are not merged with "
                f"{self.keep} by {self.metric}; collect both alike"
            )
        return self._with(other.worst, other.best)

    def _with(self, worst: Iterable[Case], best: Iterable[Case]) -> "Extremes":
        sign = 1 if column(self.metric).better == "lower" else -1

        def badness(case: Case) -> float:
            return math.inf if math.isnan(case.value) else sign * case.value

        def from_worst(case: Case) -> tuple[Any, ...]:
            return not math.isnan(case.value), -badness(case), case.index

        def from_best(case: Case) -> tuple[Any, ...]:
            return math.isnan(case.value), badness(case), case.index

        return replace(
            self,
            worst=self._first((*self.worst, *worst), from_worst),
            best=self._first((*self.best, *best), from_best),
        )

    def _first(
        self, cases: Iterable[Case], key: Callable[[Case], Any]
    ) -> tuple[Case, ...]:
        return tuple(map(_own, heapq.nsmallest(self.keep, cases, key=key)))

    def picture(self) -> UInt8[np.ndarray, "h w 3"]:
        """Return the worst and the best, each image over its reconstruction.

        Above a column stand its value and its index. Of few images, those among the
        worst are not shown as the best again.

        Raises:
            ValueError: no image was seen.
        """
        if not self.worst:
            raise ValueError("there is no picture of extremes: no image was measured")
        shown = {case.index for case in self.worst}
        best = tuple(case for case in self.best if case.index not in shown)
        heading = column(self.metric).heading
        panels = [
            _panel(f"{word} by {heading}", self.metric, cases)
            for word, cases in (("worst", self.worst), ("best", best))
            if cases
        ]
        width = max(panel.shape[1] for panel in panels)
        widened = [
            np.pad(
                panel,
                ((0, 0), (0, width - panel.shape[1]), (0, 0)),
                constant_values=255,
            )
            for panel in panels
        ]
        return np.concatenate(widened)

    def save(self, path: str | Path) -> None:
        """Write `picture` as PNG, whole or not at all.

        Raises:
            OSError: it cannot be written; what was there before is intact.
            ValueError: no image was seen.
        """
        picture = Image.fromarray(self.picture())
        with replacing(path) as part:
            picture.save(part, format="PNG")


def ranking_metric(measured: Collection[str]) -> str | None:
    """Return the metric to tell good images from bad ones by; None if there is none."""
    return next((name for name in RANKED_BY if name in measured), None)


def _own(case: Case) -> Case:
    """Return a case that does not keep the batch alive that it was cut out of."""
    if case.image.base is None and case.reconstruction.base is None:
        return case
    return case._replace(
        image=case.image.copy(), reconstruction=case.reconstruction.copy()
    )


def _panel(title: str, metric: str, cases: Sequence[Case]) -> np.ndarray:
    """Return a titled grid with two lines of caption over every column."""
    rows = {
        "original": np.stack([case.image for case in cases]),
        "reconstruction": np.stack([case.reconstruction for case in cases]),
    }
    side = rows["original"].shape[2]
    scale = max(1, -(-SIDE // side))
    grid = image_grid(rows, scale=scale)
    step = side * scale + GAP
    left = grid.shape[1] - len(cases) * step
    head = Image.new("RGB", (grid.shape[1], _MARGIN + 3 * _LINE), "white")
    draw, font = ImageDraw.Draw(head), ImageFont.load_default(size=_FONT_SIZE)
    draw.text((GAP, _MARGIN - 2), title, fill="black", font=font)
    for number, case in enumerate(cases):
        for line, caption in enumerate(
            (format_value(metric, case.value), f"index {case.index}")
        ):
            place = (left + number * step, _MARGIN + (line + 1) * _LINE - 2)
            draw.text(place, caption, fill="black", font=font)
    return np.concatenate([np.asarray(head), grid])
