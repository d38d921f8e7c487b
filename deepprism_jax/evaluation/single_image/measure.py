"""One pass over the samples of one image: every measure sees every batch.

No samples are held: what is kept of them does not grow with their number.
"""

from typing import Any

import numpy as np

from deepprism_jax.data.images import to_channels
from deepprism_jax.evaluation.single_image.suite import (
    PIXEL_DIVERSITY,
    SIFID_METRICS,
    Suite,
)
from deepprism_jax.evaluation.table4 import column
from deepprism_jax.metrics.pixel_diversity import PixelDiversity
from deepprism_jax.metrics.sifid import SIFID, few_positions, patches
from deepprism_jax.metrics.state import Score
from deepprism_jax.models.early_maps import EARLY_MAPS
from deepprism_jax.models.inception import INCEPTION

PUBLISHED = (
    "SIFID (inception): published figures are by torchvision's Inception-v3, whose "
    "weights are others; they do not compare"
)


class Measurement:
    """What is known of the samples of one image so far.

    Args:
        suite: what to measure.
        image: the training image, uint8 [h, w, c].
    """

    def __init__(self, suite: Suite, image: np.ndarray):
        self._suite, self._image = suite, _opaque(image)
        self._real = {
            name: patches(np.asarray(maps(self._image[None]))[0])
            for name, maps in suite.maps.items()
        }
        self._states: dict[str, Any] = {}
        self._notes: dict[str, None] = {}
        self.count = 0

    def add(self, samples: np.ndarray, mask: np.ndarray) -> None:
        """Take in a batch; samples where `mask` is False do not count.

        Args:
            samples: uint8 [b, h, w, c], all batches of one shape.
            mask: bool [b].
        """
        samples = _opaque(samples)
        self.count += int(mask.sum())
        for name, maps in self._suite.maps.items():
            found = np.asarray(maps(samples))[mask]
            if not len(found):
                continue
            self._merge(name, SIFID.from_batch(self._real[name], found))
            self._say(name, found)
        if self._suite.pixels:
            self._merge(PIXEL_DIVERSITY, PixelDiversity.from_batch(samples, mask))
        for name, state in self._suite.diversities.items():
            self._merge(name, state(samples, mask))

    def scores(self) -> dict[str, Score]:
        """Return all figures; what so few samples or this image do not give is left
        out, with a note.
        """
        scores = {}
        for name, state in self._states.items():
            try:
                if isinstance(state, PixelDiversity):
                    scores[name] = state.compute(self._image)
                else:
                    scores[name] = state.compute()
            except ValueError as error:
                self._notes[f"{name} left out: {error}"] = None
                continue
            if name in SIFID_METRICS:
                scores[name] = scores[name]._replace(over="samples")
        return scores

    def notes(self) -> list[str]:
        """Return what a reader must know of the figures."""
        return list(self._notes)

    def _merge(self, name: str, part: Any) -> None:
        there = self._states.get(name)
        self._states[name] = part if there is None else there.merge(part)

    def _say(self, name: str, maps: np.ndarray) -> None:
        layer = EARLY_MAPS[SIFID_METRICS[name]]
        self._notes[
            f"{column(name).heading}: {layer.network}, {layer.layer}, "
            f"{layer.channels} features at every position; images are not resized"
        ] = None
        if layer.network == INCEPTION.name:
            self._notes[PUBLISHED] = None
        if line := few_positions(maps):
            self._notes[line.replace("SIFID", column(name).heading)] = None


def _opaque(images: np.ndarray) -> np.ndarray:
    """Return gray or RGB images; transparent ones are laid over white."""
    if images.shape[-1] != 4:
        return images
    if images.ndim == 3:
        return to_channels(images, 3)
    return np.stack([to_channels(image, 3) for image in images])
