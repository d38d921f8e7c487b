"""Reading several images of a source at once, past those that cannot be read."""

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from deepprism_jax.data.images import UnreadableImageError, to_channels
from deepprism_jax.data.source import Source

# So many in a row mean that the data are gone, not that a few files are broken.
UNREADABLE_IN_A_ROW = 100

_log = logging.getLogger(__name__)


class Reader:
    """Reads images of `source` with `channels` channels, at least of `image_size`.

    Sources that are not in memory are read by a pool of threads: Pillow decodes and
    resizes outside Python's global lock. Every unreadable image is logged once.
    """

    def __init__(self, source: Source, image_size: tuple[int, int], channels: int):
        self.source, self.image_size, self.channels = source, image_size, channels
        self.unreadable: set[int] = set()
        in_memory = getattr(source, "in_memory", False)
        self._threads = 1 if in_memory else min(16, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self._threads) if self._threads > 1 else None

    def for_each(
        self, function: Callable[[int, int], None], indices: list[int]
    ) -> None:
        """Call `function(row, index)` for every index and its row."""

        def every(start: int) -> None:
            for row in range(start, len(indices), self._threads):
                function(row, indices[row])

        if self._pool is None:
            every(0)
        else:
            list(self._pool.map(every, range(self._threads)))

    def read_item(self, index: int) -> dict[str, np.ndarray] | None:
        """Return image `index` and what its source gives beside it, or None."""
        try:
            item = self.source[index]
            image = np.asarray(item["image"])
        except UnreadableImageError as error:
            if index not in self.unreadable:
                self.unreadable.add(index)
                count = len(self.unreadable)
                _log.warning("unreadable image skipped (%d so far): %s", count, error)
            return None
        height, width = self.image_size
        if image.dtype != np.uint8 or image.ndim != 3:
            raise ValueError(
                f"image {index} of the source is {image.dtype} {list(image.shape)}; "
                "sources give uint8 [h, w, c]"
            )
        if image.shape[0] < height or image.shape[1] < width:
            raise ValueError(
                f"image {index} of the source is {image.shape[0]}x{image.shape[1]}, "
                f"smaller than image_size {height}x{width}; choose a smaller image_size"
            )
        return {**item, "image": to_channels(image, self.channels)}

    def read_item_from(self, index: int) -> dict[str, np.ndarray]:
        """Return image `index` as `read_item` does, or the next that can be read."""
        total = len(self.source)
        for offset in range(min(total, UNREADABLE_IN_A_ROW)):
            item = self.read_item((index + offset) % total)
            if item is not None:
                return item
        raise ValueError(
            f"{min(total, UNREADABLE_IN_A_ROW)} images in a row cannot be read, from "
            f"image {index} of {total} on; is the source still there?"
        )
