"""What generated images and reconstructions are compared with, for every network.

That is the images evaluated on, whose features are kept in a cache, or a file of
reference statistics.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepprism_jax.evaluation.feature_sets import (
    FeatureSet,
    Reals,
    Settings,
    compare_sets,
    score_of,
)
from deepprism_jax.evaluation.networks import Distribution, Suite
from deepprism_jax.evaluation.reference_files import load_references
from deepprism_jax.metrics.feature_cache import FeatureCache, cache_path
from deepprism_jax.metrics.feature_rows import FeatureRows
from deepprism_jax.metrics.feature_source import FeatureSource
from deepprism_jax.metrics.precision_recall import NEIGHBOURS
from deepprism_jax.metrics.reference import (
    Provenance,
    Reference,
    check_free,
    save_reference,
)
from deepprism_jax.metrics.state import Score
from deepprism_jax.version import code_of, code_version


@dataclass(frozen=True)
class Images:
    """The images evaluated on, as far as features depend on them."""

    data: str
    """Name or folder of the data set."""
    split: str
    image_size: tuple[int, int]
    count: int

    def source(self, distribution: Distribution) -> FeatureSource:
        """Return what their features by a network depend on."""
        network = distribution.network
        return FeatureSource(
            self.data,
            self.split,
            self.image_size,
            network.resize,
            network.name,
            distribution.fingerprint,
        )


class RealSide:
    """The real side of every comparison of distributions.

    Metrics that need more images than there are leave the suite, with a line.

    Args:
        suite: the metrics.
        images: those that are evaluated on.
        settings: splits and subsets.
        asked: metrics that were asked for by name; these are refused, not left out.
        reference: file of statistics to compare with instead.
        save: file to write the statistics of the images to.
        cache: whether to keep features from one evaluation to the next.

    Raises:
        ValueError, OSError: a file cannot be used, or there are too few images.
    """

    def __init__(
        self,
        suite: Suite,
        images: Images,
        settings: Settings,
        *,
        asked: tuple[str, ...] = (),
        reference: Path | None = None,
        save: Path | None = None,
        cache: bool = True,
    ):
        self._images, self._settings, self._save = images, settings, save
        self._references: dict[str, Reference] = {}
        if reference:
            self._references = load_references(reference, suite, images.image_size)
        for distribution in suite.distributions:
            of_file = self._references.get(distribution.key)
            _fit(suite, distribution, images.count, of_file, settings, asked)
        suite.distributions = [d for d in suite.distributions if d.metrics]
        self._suite = suite
        if save:
            check_free(save)
            if len(suite.distributions) != 1:
                there = ", ".join(d.key for d in suite.distributions) or "none"
                raise ValueError(
                    f"reference {save} is of one network, and the metrics need "
                    f"{there}: choose metrics of one with --metrics"
                )
        self.caches: dict[str, FeatureCache] = {}
        if cache:
            self.caches = {
                d.key: FeatureCache(
                    cache_path(images.source(d), code=code_of(d.network))
                )
                for d in suite.distributions
            }

    @property
    def needed(self) -> frozenset[str]:
        """Keys of the networks that must see the images evaluated on."""
        keys = {d.key for d in self._suite.distributions}
        return frozenset(keys if self._save else keys - self._references.keys())

    @contextlib.contextmanager
    def caching(self) -> Iterator[None]:
        """Keep what was computed inside the block, also of one that is interrupted."""
        try:
            yield
        finally:
            for cache in self.caches.values():
                cache.save()

    def compare(
        self, real: Mapping[str, FeatureSet], found: Mapping[str, FeatureSet]
    ) -> tuple[dict[str, Score], list[str]]:
        """Return the scores of a method's images by all networks, and notes on them.

        Args:
            real: features of the images evaluated on, by network.
            found: those of the method's images.

        Raises:
            ValueError: see `feature_sets.compare_sets`.
        """
        scores: dict[str, Score] = {}
        notes: list[str] = []
        for distribution in self._suite.distributions:
            if distribution.key not in found:
                continue
            side = self._side(distribution, real)
            more, said = compare_sets(
                distribution.metrics, side, found[distribution.key], self._settings
            )
            scores |= more
            notes += said
        return scores, notes

    def scores_of_images(self, real: Mapping[str, FeatureSet]) -> dict[str, Score]:
        """Return what can be said of the images evaluated on alone."""
        return {
            d.metrics["score"]: score_of(real[d.key].logits, self._settings.splits)[0]
            for d in self._suite.distributions
            if "score" in d.metrics and d.key in real
        }

    def notes(self) -> list[str]:
        """Return lines on caches and references."""
        said = [note for cache in self.caches.values() for note in cache.notes]
        return said + [n for r in self._references.values() for n in r.notes]

    def facts(self) -> dict[str, Any]:
        """Return what belongs to the provenance of the figures."""
        found: dict[str, Any] = {"kid_subset": self._settings.kid_subset}
        for reference in self._references.values():
            origin = reference.provenance
            found["reference"] = (
                "statistics of unknown origin"
                if origin is None
                else f"{origin.images:,} images of "
                f"{'x'.join(map(str, origin.image_size))}, {origin.data}, split "
                f"{origin.split!r} (deepprism_jax {origin.version})"
            )
        return found

    def write(self, real: Mapping[str, FeatureSet]) -> list[str]:
        """Write the reference that was asked for; return its name, or nothing.

        Raises:
            OSError: it cannot be written.
        """
        if self._save is None:
            return []
        (distribution,) = self._suite.distributions
        found = real[distribution.key]
        source = self._images.source(distribution)
        provenance = Provenance(
            **vars(source), images=found.count, version=code_version()
        )
        reference = Reference(
            found.gaussian.statistics,
            found.pool.array(),
            found.logits.array(),
            provenance,
        )
        save_reference(self._save, reference)
        return [str(self._save)]

    def _side(
        self, distribution: Distribution, real: Mapping[str, FeatureSet]
    ) -> Reals:
        reference = self._references.get(distribution.key)
        if reference is None:
            found = real[distribution.key]
            return Reals(found.gaussian, found.pool)
        rows = reference.features
        return Reals(
            reference.statistics,
            None if rows is None else FeatureRows.from_array(rows),
        )


def _fit(
    suite: Suite,
    distribution: Distribution,
    count: int,
    reference: Reference | None,
    settings: Settings,
    asked: tuple[str, ...],
) -> None:
    """Take metrics away that need more images than there are, or refuse them."""
    both = count
    if reference is not None and reference.features is not None:
        both = min(count, len(reference.features))
    smaller = "choose smaller subsets with --kid-subset"
    least = {
        "frechet": (2, count, ""),
        "score": (settings.splits, count, "choose fewer splits with --splits"),
        "kernel": (settings.kid_subset, both, smaller),
        "precision": (NEIGHBOURS + 1, both, ""),
        "recall": (NEIGHBOURS + 1, both, ""),
    }
    for role, (images, there, remedy) in least.items():
        name = distribution.metrics.get(role)
        if name is None or there >= images:
            continue
        line = f"{name}: needs at least {images:,} images, and there are {there:,}"
        if name in asked:
            more = f", or {remedy}" if remedy else ""
            raise ValueError(f"{line}; evaluate more images{more}")
        del distribution.metrics[role]
        suite.skipped.append(line)
