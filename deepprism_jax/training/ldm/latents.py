"""The latents of a run: made before its first step, then read as batches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import grain
import numpy as np

from deepprism_jax.data import EvalBatches, TrainBatches
from deepprism_jax.data.order import Share
from deepprism_jax.data.pipeline import ENDLESS, READ_AHEAD
from deepprism_jax.training.ldm.cache import (
    FIRST,
    Encode,
    LatentCache,
    Part,
    is_written,
    write_part,
)

PIECE = 16_384
"""Rows that a process encodes, or encodes anew, at a time."""


@dataclass(frozen=True)
class Latents:
    """Latents of a split, in a cache that may be yet to be made.

    Args:
        folder: of the cache.
        facts: what makes them what they are.
        images: of the split, as this process reads them.
        part: the share of this process.
        flips: 2 with mirror images, else 1.
    """

    folder: Path
    facts: Mapping[str, Any]
    images: EvalBatches
    part: Part
    flips: int

    def check(self) -> bool:
        """Return whether they are all there, in however many parts.

        Raises:
            ValueError: what is there was made of something else, or is damaged.
        """
        cache = self._found()
        if cache is None:
            return False
        for name, asked in self.facts.items():
            if (there := cache.records[0].get(name)) != asked:
                raise ValueError(
                    f"{self.folder} holds latents of other {name} "
                    f"({there}, here {asked}): choose another --data.latents"
                )
        return True

    def missing(self) -> list[int]:
        """Return the pieces of which a process's part is not there, or not whole."""
        return [
            piece
            for piece in range(self._pieces)
            if not all(
                is_written(self.folder, self._part(piece, n), self._facts(piece))
                for n in range(self.part.count)
            )
        ]

    def make(
        self,
        encode: Encode,
        proceed: Callable[[int], None],
        pieces: Sequence[int] | None = None,
    ) -> None:
        """Encode this process's part of pieces, see `write_part`.

        What ends it loses the piece that it is at.

        Args:
            encode: the autoencoder, on the devices of all processes together.
            proceed: told how many rows of this process are done, or were there.
            pieces: what is `missing`, the same of every process; found out if None.
        """
        rows = self.images.rows
        for piece in self.missing() if pieces is None else pieces:
            first = piece * self._batches
            last = min(first + self._batches, len(self.images))
            write_part(
                self.folder,
                self._part(piece, self.part.index),
                self._facts(piece),
                self.images.between(first, last),
                (last - first) * rows,
                encode,
                flips=self.flips,
                proceed=lambda done, first=first: proceed(first * rows + done),
            )

    @property
    def _batches(self) -> int:
        """Batches of a piece."""
        return max(1, PIECE // self.images.rows)

    @property
    def _pieces(self) -> int:
        return -(-len(self.images) // self._batches)

    def _part(self, piece: int, process: int) -> Part:
        return Part(process * self._pieces + piece, self.part.count * self._pieces)

    def _facts(self, piece: int) -> dict[str, Any]:
        """Return what makes a piece, of any process, what it is."""
        rows = self.images.rows
        shares = {"processes": self.part.count, "rows_of_batch": rows}
        return {**self.facts, **shares, FIRST: piece * self._batches * rows}

    def cache(self) -> LatentCache:
        """Return the cache, of which all parts must be there.

        Raises:
            ValueError: no image could be read.
        """
        cache = self._found()
        if cache is None or not len(cache):
            raise ValueError(f"{self.folder} holds no latent: no image could be read")
        return cache

    def size(self, numbers: int) -> int:
        """Return the bytes on disk of latents of so many numbers, at most."""
        return 2 * 2 * self.flips * self.images.images * numbers

    def _found(self) -> LatentCache | None:
        """Return what is there and complete, or None."""
        found = {path.name[-10:-5] for path in self.folder.glob("part-*-of-*.json")}
        for count in sorted(found):
            cache = LatentCache(self.folder, int(count))
            if cache.is_complete():
                return cache
        return None


class HeldOut(NamedTuple):
    """What a denoiser is evaluated on, and what is known of its data."""

    latents: Latents | None
    """None where pixels are diffused."""
    images: EvalBatches
    classes: tuple[str, ...]


@dataclass
class LatentBatches:
    """Endless `{"mean", "std"}` of latents; the position can be saved.

    Every epoch is a new permutation; which latents are mirrored is drawn with it. A
    batch is a pure function of its number, as in `data.train_batches`.

    Args:
        latents: of the training split.
        batch_size: latents a batch over all processes.
        seed: of the order.
        labels: give `"label"` too.
        pieces: parts of a batch that are computed one after the other.
        process_index: this process's share of a batch.
        process_count: how many shares there are.
    """

    latents: Latents
    batch_size: int
    seed: int
    labels: bool = False
    pieces: int = 1
    process_index: int = 0
    process_count: int = 1
    _state: Mapping[str, Any] | None = field(default=None, init=False)
    _batches: TrainBatches | None = field(default=None, init=False, repr=False)

    def __next__(self) -> dict[str, np.ndarray]:
        return next(self._opened())

    def get_state(self) -> dict[str, int]:
        """Return the position, see `data.TrainBatches`."""
        return self._opened().get_state()

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a position; the latents need not be there yet."""
        self._state, self._batches = state, None

    def _opened(self) -> TrainBatches:
        if self._batches is None:
            self._batches = self._open(self.latents.cache())
            if self._state is not None:
                self._batches.set_state(self._state)
        return self._batches

    def _open(self, cache: LatentCache) -> TrainBatches:
        rows = self.batch_size // self.process_count // self.pieces
        share = Share(rows, self.pieces, self.process_index, self.process_count)

        def assemble(step: int) -> dict[str, np.ndarray]:
            images, random = share.of_batch(step, seed=self.seed, images=len(cache))
            mirrored = (random[:, 2] < 0.5) & (cache.flips > 1)
            rows = cache.rows(images, mirrored)
            return rows if self.labels else _without(rows, "label")

        batches = grain.MapDataset.range(ENDLESS).map(assemble)
        return TrainBatches(iter(batches.to_iter_dataset(READ_AHEAD)), len(cache))


def _without(rows: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {key: x for key, x in rows.items() if key != name}
