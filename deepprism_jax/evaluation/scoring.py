"""One pass over the images: every method reconstructs them, every metric sees them.

Features are computed once and serve all metrics that are made of them. What is held
grows with the number of images by their features and by one number an image and
metric; images are not held.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deepprism_jax.evaluation.feature_sets import Extract, FeatureSet
from deepprism_jax.evaluation.pairs import Measure
from deepprism_jax.evaluation.reconstruction import Reconstruct
from deepprism_jax.image_features import ImageFeatures
from deepprism_jax.metrics.feature_cache import FeatureCache
from deepprism_jax.metrics.state import Moments, Score

MID_GRAY = 120
"""[0, 1] taken for [-1, 1] becomes 128 to 255; a little below it may be noise."""

SUSPICIOUS = 0.05
"""Reconstructions with so small a share of the images' dark pixels are asked about."""

NAMED = 5
"""Images with NaN that a message names; of the others it gives the number."""


class Batch(NamedTuple):
    """What one method has reached on one batch, on the host."""

    indices: np.ndarray
    """Place of every image in the split [n]; images that only fill up are left out."""
    values: dict[str, np.ndarray]
    """Number of every image by metric [n]; NaN where the reconstruction has one."""
    images: np.ndarray
    reconstructions: np.ndarray


Watch = Callable[[str, Batch], None]
"""Is shown every batch of every method."""


@dataclass
class Contestant:
    """A method that is measured, and what is known of it so far."""

    reconstruct: Reconstruct
    features: bool = True
    """Whether its images go through the feature networks."""
    moments: dict[str, Moments] = field(default_factory=dict)
    sets: dict[str, FeatureSet] = field(default_factory=dict)
    broken: list[int] = field(default_factory=list)
    """Images whose reconstructions are not finite: no metric counts them."""
    dark: int = 0
    """Number of values of pixels below mid-gray."""

    def scores(self) -> dict[str, Score]:
        """Return mean and spread of every metric of pairs."""
        return {name: moments.compute() for name, moments in self.moments.items()}


@dataclass
class Pass:
    """What is measured in a pass, and of the images themselves.

    Attributes:
        measure: metrics of pairs.
        extract: key to feature network.
        place: puts a tree of host arrays on the devices.
        wanted: keys of the networks that are to see the images themselves; None is all.
        caches: key to cache of features of the images themselves.
        real: features of the images themselves, by key.
        dark: number of values of their pixels below mid-gray.
        count: images so far.
    """

    measure: Measure
    extract: Mapping[str, Extract]
    place: Callable[[Any], Any]
    wanted: frozenset[str] | None = None
    caches: Mapping[str, FeatureCache] = field(default_factory=dict)
    real: dict[str, FeatureSet] = field(default_factory=dict)
    dark: int = 0
    count: int = 0

    def run(
        self,
        contestants: Mapping[str, Contestant],
        batches: Iterable[Mapping[str, Any]],
        watch: Sequence[Watch] = (),
    ) -> None:
        """Show all batches to all contestants, and their results to `watch`.

        Args:
            contestants: by name; they gather what they reach.
            batches: of `data.eval_batches`.
            watch: see `Watch`.

        Raises:
            ValueError: there is no image, or no reconstruction of a contestant is
                finite.
        """
        for batch in batches:
            images, mask = np.asarray(batch["image"]), np.asarray(batch["mask"])
            indices = np.asarray(batch["index"])
            self.count += int(mask.sum())
            self.dark += int(np.sum(images[mask] < MID_GRAY))
            placed = self.place(images)
            self._add_real(images, placed, indices, mask)
            for name, contestant in contestants.items():
                seen = self._show(contestant, images, placed, indices, mask)
                for each in watch:
                    each(name, seen)
        if not self.count:
            raise ValueError("no image was measured: the split is empty")
        for name, contestant in contestants.items():
            if len(contestant.broken) == self.count:
                raise ValueError(
                    f"every reconstruction by {name} has NaN or infinite numbers: its "
                    "training has diverged; evaluate an earlier checkpoint"
                )
        for found in (self.real, *(c.sets for c in contestants.values())):
            for features in found.values():
                features.compact()

    def _add_real(
        self, images: np.ndarray, placed: Any, indices: np.ndarray, mask: np.ndarray
    ) -> None:
        for key, extract in self.extract.items():
            if self.wanted is not None and key not in self.wanted:
                continue
            cache = self.caches.get(key)
            features = None if cache is None else cache.lookup(images[mask])
            if features is None:
                features = ImageFeatures(*(x[mask] for x in _on_host(extract(placed))))
                if cache is not None:
                    cache.add(images[mask], features)
            found = self.real.setdefault(key, FeatureSet())
            found.add(features, indices[mask], mask[mask])

    def _show(
        self,
        contestant: Contestant,
        images: np.ndarray,
        placed: Any,
        indices: np.ndarray,
        mask: np.ndarray,
    ) -> Batch:
        pixels, finite = contestant.reconstruct(placed)
        values = self.measure(placed, pixels)
        extracts = self.extract if contestant.features else {}
        features = {key: extract(pixels) for key, extract in extracts.items()}
        # Everything is under way on the devices before the host waits for a result.
        finite, values, pixels = jax.device_get((finite, values, pixels))
        good = mask & finite
        contestant.broken += indices[mask & ~finite].tolist()
        contestant.dark += int(np.sum(pixels[good] < MID_GRAY))
        for name, numbers in values.items():
            part = Moments.from_values(jnp.asarray(numbers), good)
            total = contestant.moments.get(name)
            contestant.moments[name] = part if total is None else total.merge(part)
        for key, found in features.items():
            contestant.sets.setdefault(key, FeatureSet()).add(
                _on_host(found), indices, good
            )
        shown = {
            name: np.where(finite, numbers, np.nan)[mask]
            for name, numbers in values.items()
        }
        return Batch(indices[mask], shown, images[mask], pixels[mask])


def _on_host(features: ImageFeatures) -> ImageFeatures:
    return ImageFeatures(*jax.device_get(tuple(features)))


def warnings(name: str, contestant: Contestant, passed: Pass) -> list[str]:
    """Return what is suspicious in the reconstructions of a method."""
    lines = []
    if broken := contestant.broken:
        listed = ", ".join(map(str, broken[:NAMED]))
        more = f" and {len(broken) - NAMED:,} more" if len(broken) > NAMED else ""
        lines.append(
            f"{len(broken):,} of {passed.count:,} reconstructions by {name} have NaN "
            f"or infinite numbers and count in no figure: images {listed}{more}"
        )
    if contestant.dark < SUSPICIOUS * passed.dark:
        lines.append(
            f"almost no pixel of the reconstructions by {name} is darker than "
            "mid-gray, and many of the images are: does the model give [0, 1] or "
            "[0, 255] where [-1, 1] is due?"
        )
    return lines
