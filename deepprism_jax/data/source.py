"""What a data source is, and two that keep images in memory."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8


@runtime_checkable
class Source(Protocol):
    """Random access to images; any object with these two methods will do.

    `source[i]` is `{"image": uint8 [h, w, c]}`; images may differ in size and must be
    at least as large as the crop that is taken from them. Reading an image may raise
    `UnreadableImageError`: training takes the next one, evaluation masks it. A source
    that holds its images in memory says so by an attribute `in_memory = True` and is
    then read without a pool of threads.
    """

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, index: int, /) -> dict[str, np.ndarray]:
        """Return image number `index`."""
        ...


class ArraySource:
    """Images in memory: one uint8 array [n, h, w, c], or arrays of several sizes."""

    in_memory = True

    def __init__(
        self,
        images: UInt8[np.ndarray, "n h w c"] | Sequence[UInt8[np.ndarray, "_ _ c"]],
    ):
        self.images = images

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Return image number `index` without a copy."""
        return {"image": self.images[index]}


class CachedSource:
    """Another source's images, kept in memory once read, as far as `budget` bytes go.

    From the second epoch on a small set costs no decoding; of a large one the images
    that were read first are kept. Nothing is ever dropped.
    """

    def __init__(self, source: Source, budget: int = 512 * 2**20):
        self.source = source
        self._kept: dict[int, dict[str, np.ndarray]] = {}
        self._left = budget

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Return image number `index`, decoded at most once while there is room."""
        item = self._kept.get(index)
        if item is None:
            item = self.source[index]
            size = item["image"].nbytes
            # Two threads may both count an image: the budget is then kept with room.
            if size <= self._left:
                self._left -= size
                self._kept[index] = item
        return item
