"""Features of whole sets of images by one network, and what is made of two of them."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from deepprism_jax.evaluation.networks import Distribution
from deepprism_jax.image_features import ImageFeatures
from deepprism_jax.metrics.feature_rows import FeatureRows, in_blocks
from deepprism_jax.metrics.fid import FID
from deepprism_jax.metrics.gaussian import Gaussian, Statistics
from deepprism_jax.metrics.inception_score import SPLITS, InceptionScore
from deepprism_jax.metrics.kid import KID, SUBSET_SIZE
from deepprism_jax.metrics.precision_recall import PrecisionRecall
from deepprism_jax.metrics.state import Score
from deepprism_jax.training.sharding import replicated, spread

Extract = Callable[[Any], ImageFeatures]
"""8-bit images [b, h, w, c] to their features, on every process the whole batch's."""

AT_ONCE = {"cpu": 4}
"""Images that a device's network sees at once, 128 elsewhere: at 299x299 their maps
take memory, and more of them are no faster."""


def make_extract(distribution: Distribution, mesh: Mesh) -> Extract:
    """Return a jitted function that spreads images over a mesh and gathers features."""
    params = jax.device_put(distribution.params, replicated(mesh))
    most = AT_ONCE.get(mesh.devices.flat[0].platform, 128)

    def apply(params: Any, images: jax.Array) -> ImageFeatures:
        count = len(images)
        step = min(count, most)
        rows = -(-count // step) * step
        padded = jnp.zeros((rows, *images.shape[1:]), images.dtype)
        padded = padded.at[:count].set(images)
        features = jax.lax.map(
            lambda part: distribution.network.apply(params, part),
            padded.reshape(-1, step, *images.shape[1:]),
        )
        return jax.tree.map(lambda x: x.reshape(rows, *x.shape[2:])[:count], features)

    function = jax.jit(spread(mesh, apply), out_shardings=replicated(mesh))
    return lambda images: function(params, images)


@dataclass
class FeatureSet:
    """Features of one set of images, batch by batch."""

    pool: FeatureRows = field(default_factory=FeatureRows)
    logits: FeatureRows = field(default_factory=FeatureRows)

    def add(
        self, features: ImageFeatures, indices: np.ndarray, mask: np.ndarray
    ) -> None:
        """Take in one batch; rows where `mask` is False do not count."""
        if not mask.any():
            return
        self.pool = self.pool.merge(
            FeatureRows.from_batch(features.pool, indices, mask)
        )
        self.logits = self.logits.merge(
            FeatureRows.from_batch(features.logits, indices, mask)
        )

    @property
    def count(self) -> int:
        """Number of images."""
        return self.pool.count

    @functools.cached_property
    def gaussian(self) -> Gaussian:
        """Mean and covariance of the features, once the last batch is in.

        At once, for a matrix of covariances is larger than a batch of features.
        """
        return Gaussian.from_batch(self.pool.array())

    def compact(self) -> None:
        """Put all rows into one block, in order, once the last batch is in."""
        self.pool, self.logits = self.pool.compact(), self.logits.compact()


@dataclass(frozen=True)
class Settings:
    """How distributions are measured."""

    kid_subset: int = SUBSET_SIZE
    """Images in a subset of KID."""
    splits: int = SPLITS
    """Splits of the inception score."""

    def __post_init__(self) -> None:
        """Refuse what no number of images allows.

        Raises:
            ValueError: there is no split, or subsets are of fewer than two images.
        """
        if self.splits < 1:
            raise ValueError(f"splits {self.splits} must be at least 1")
        if self.kid_subset < 2:
            raise ValueError(f"kid-subset {self.kid_subset} must be at least 2")


@dataclass(frozen=True)
class Reals:
    """The real side of a comparison: features, or what a file of statistics has."""

    statistics: Gaussian | Statistics
    rows: FeatureRows | None
    """None where a file has no features: no KID, no precision and recall."""


def score_of(logits: FeatureRows, splits: int) -> tuple[Score, list[str]]:
    """Return the inception score of a set, and notes on it."""
    rows = logits.array()
    empty = InceptionScore.empty(len(rows), splits)
    state = empty
    for block in in_blocks(len(rows), rows.shape[1], 2**22):
        indices = np.arange(len(rows))[block]
        state = state.merge(empty.from_batch(rows[block], indices))
    return state.compute(), state.notes()


def compare_sets(
    metrics: Mapping[str, str], real: Reals, found: FeatureSet, settings: Settings
) -> tuple[dict[str, Score], list[str]]:
    """Return the scores of a set of images beside real ones, and notes on them.

    Args:
        metrics: role to name of what is wanted.
        real: what to compare with.
        found: features of reconstructions or generated images.
        settings: splits and subsets.

    A metric that fails, for images that turned out to be of no use leave too few, is
    left out with a note: the others stand.
    """
    scores: dict[str, Score] = {}
    notes: list[str] = []

    @contextlib.contextmanager
    def leaving_out(*roles: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            names = ", ".join(metrics[role] for role in roles if role in metrics)
            notes.append(f"{names} left out: {error}")

    if "score" in metrics:
        with leaving_out("score"):
            scores[metrics["score"]], said = score_of(found.logits, settings.splits)
            notes += said
    if "frechet" in metrics:
        with leaving_out("frechet"):
            fid = FID(real.statistics, found.gaussian)
            scores[metrics["frechet"]] = fid.compute()
            notes += fid.notes()
    if real.rows is None:
        left = [metrics[r] for r in ("kernel", "precision", "recall") if r in metrics]
        if left:
            notes.append(
                f"{', '.join(left)} left out: the reference holds statistics alone; "
                "make one with features (--save-reference)"
            )
        return scores, notes
    if "kernel" in metrics:
        with leaving_out("kernel"):
            kid = KID(real.rows, found.pool, size=settings.kid_subset)
            scores[metrics["kernel"]] = kid.compute()
            notes += kid.notes()
    if "precision" in metrics or "recall" in metrics:
        with leaving_out("precision", "recall"):
            state = PrecisionRecall(real.rows, found.pool)
            both = state.compute()
            notes += state.notes()
            for role, score in zip(("precision", "recall"), both, strict=True):
                if role in metrics:
                    scores[metrics[role]] = score
    return scores, notes
