"""Features of real images, kept from one evaluation to the next.

Real images are the same every time and their features take most of the time. Each is
found by a digest of its pixels, so a changed file, another number of images or another
batch never gives the features of another image.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from deepprism_jax.files import cache_directory
from deepprism_jax.image_features import ImageFeatures
from deepprism_jax.metrics.array_file import DamagedError, read_arrays, write_arrays
from deepprism_jax.metrics.feature_rows import valid_rows
from deepprism_jax.metrics.feature_source import FeatureSource

DIGEST = 16
"""Bytes; two of 10^9 images have the same digest once in 10^20 times."""

MOST_BYTES = 2**30
"""Memory that features may take: 88,000 images of Inception's."""


def cache_path(
    source: FeatureSource, directory: str | Path | None = None, *, code: str = ""
) -> Path:
    """Return the file of that source, in the user's cache directory if none is given.

    `code` tells one implementation of the network from another.

    That is `deepprism_jax/features` in `$XDG_CACHE_HOME` or `~/.cache`.
    """
    if directory is None:
        directory = cache_directory() / "features"
    return Path(directory) / f"{'-'.join(filter(None, (source.slug, code)))}.npz"


class FeatureCache:
    """Features by image, in memory and in a file.

    A file that is damaged is not used, and written anew. No trouble with the file ends
    an evaluation; `notes` has a line on it.
    """

    def __init__(self, path: str | Path, most_bytes: int = MOST_BYTES) -> None:
        """Read the file, if there is one."""
        self.path = Path(path)
        self.notes: list[str] = []
        self._most_bytes = most_bytes
        self._blocks: list[ImageFeatures] = []
        self._places: dict[bytes, tuple[int, int]] = {}
        self._changed = False
        self._keep(*self._read())

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._places)

    def lookup(self, images: UInt8[np.ndarray, "b h w c"]) -> ImageFeatures | None:
        """Return the features of a batch, or None if those of an image are missing."""
        places = [self._places.get(digest) for digest in digests(images)]
        found = [place for place in places if place is not None]
        if not found or len(found) < len(places):
            return None
        parts = (
            [self._blocks[block][part][row] for block, row in found] for part in (0, 1)
        )
        return ImageFeatures(*map(np.stack, parts))

    def add(
        self, images: UInt8[np.ndarray, "b h w c"], features: ImageFeatures
    ) -> None:
        """Keep the features of a batch, until they would take too much memory.

        Raises:
            ValueError: there are features of more or fewer images, of other sizes than
                before, or not finite.
        """
        arrays = ImageFeatures(*(valid_rows(x).astype(np.float32) for x in features))
        if any(len(x) != len(images) for x in arrays):
            raise ValueError(
                f"features of {len(arrays.pool)} and {len(arrays.logits)} images were "
                f"given for {len(images)} images: give one row an image"
            )
        if self._blocks and _sizes(arrays) != _sizes(self._blocks[0]):
            raise ValueError(
                f"feature cache {self.path} has features of sizes "
                f"{_sizes(self._blocks[0])}, not {_sizes(arrays)}: it belongs to "
                "another network, delete it"
            )
        if self._keep(digests(images), arrays):
            self._changed = True

    def save(self) -> None:
        """Write the file if there is something new, with all that is in it already.

        Another process may have written since; what it found is kept.
        """
        if not self._changed:
            return
        self._keep(*self._read())
        pool, logits = (
            np.concatenate([block[part] for block in self._blocks]) for part in (0, 1)
        )
        # Places are in the order of the blocks and of the rows in them.
        keys = np.frombuffer(b"".join(self._places), np.uint8).reshape(-1, DIGEST)
        try:
            write_arrays(self.path, {"digests": keys, "pool": pool, "logits": logits})
        except OSError as error:
            self.notes.append(
                f"feature cache {self.path} was not written: {error.strerror or error}"
            )
            return
        self._changed = False

    def _keep(self, keys: Sequence[bytes], features: ImageFeatures) -> bool:
        """Take in the rows that are new; return whether there are any."""
        new: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            if key not in self._places:
                new.setdefault(key, row)
        each = sum(x.itemsize * x.shape[1] for x in features)
        room = max(0, self._most_bytes - self._bytes()) // max(1, each)
        if len(new) > room:
            new = dict(list(new.items())[:room])
            note = (
                f"feature cache {self.path} keeps {len(self) + room:,} images and no "
                f"more: their features take {self._most_bytes / 2**20:,.0f} MiB"
            )
            if note not in self.notes:
                self.notes.append(note)
        if not new:
            return False
        if len(new) < len(keys):
            features = ImageFeatures(*(x[list(new.values())] for x in features))
        self._places |= {key: (len(self._blocks), i) for i, key in enumerate(new)}
        self._blocks.append(features)
        return True

    def _bytes(self) -> int:
        return sum(x.nbytes for block in self._blocks for x in block)

    def _read(self) -> tuple[list[bytes], ImageFeatures]:
        nothing = [], ImageFeatures(np.zeros((0, 0)), np.zeros((0, 0)))
        try:
            arrays = read_arrays(self.path)
            keys, pool, logits = (arrays[n] for n in ("digests", "pool", "logits"))
            if problem := _problem(keys, pool, logits):
                raise DamagedError(problem)
            features = ImageFeatures(pool, logits)
            if self._blocks and _sizes(features) != _sizes(self._blocks[0]):
                raise DamagedError(f"features have sizes {_sizes(features)}")
        except FileNotFoundError:
            return nothing
        except (DamagedError, KeyError) as error:
            self.notes.append(
                f"feature cache {self.path} is damaged and is made anew: {error}"
            )
            return nothing
        return [key.tobytes() for key in keys], features


def digests(images: UInt8[np.ndarray, "b h w c"]) -> list[bytes]:
    """Return a digest of the shape and the pixels of every image."""
    shape = repr(images.shape[1:]).encode()
    return [
        hashlib.blake2b(shape + image.tobytes(), digest_size=DIGEST).digest()
        for image in images
    ]


def _sizes(features: ImageFeatures) -> tuple[int, int]:
    return features.pool.shape[1], features.logits.shape[1]


def _problem(keys: np.ndarray, pool: np.ndarray, logits: np.ndarray) -> str | None:
    """Return what is wrong with the arrays of a file, or None."""
    if keys.dtype != np.uint8 or keys.ndim != 2 or keys.shape[1] != DIGEST:
        return f"digests are {keys.dtype} {keys.shape}"
    for name, rows in (("pool", pool), ("logits", logits)):
        if rows.dtype != np.float32 or rows.ndim != 2 or len(rows) != len(keys):
            return f"{name} is {rows.dtype} {rows.shape} for {len(keys)} images"
        if not np.isfinite(rows).all():
            return f"{name} has numbers that are not finite"
    return None
