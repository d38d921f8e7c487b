"""What a data source is, and two that keep images in memory."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer, UInt8


@runtime_checkable
class Source(Protocol):
    """Random access to images; any object with these two methods will do.

    `source[i]` is `{"image": uint8 [h, w, c]}`; images may differ in size and must be
    at least as large as the crop that is taken from them. Reading an image may raise
    `UnreadableImageError`: training takes the next one, evaluation masks it. A source
    that holds its images in memory says so by an attribute `in_memory = True` and is
    then read without a pool of threads. One whose images have classes names them by an
    attribute `class_names`, a tuple of texts, and gives each image's place among them
    beside it, `"label"`, an integer; -1 where an image has none. See `class_names`.
    """

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, index: int, /) -> dict[str, np.ndarray]:
        """Return image number `index`."""
        ...


def class_names(source: Source) -> tuple[str, ...]:
    """Return the names of a source's classes by label; () where it has none."""
    return tuple(getattr(source, "class_names", ()))


class ArraySource:
    """Images in memory: one uint8 array [n, h, w, c], or arrays of several sizes.

    Raises:
      ValueError: labels without names, or not one a image, or not among the names.
    """

    in_memory = True

    def __init__(
        self,
        images: UInt8[np.ndarray, "n h w c"] | Sequence[UInt8[np.ndarray, "_ _ c"]],
        labels: Integer[np.ndarray, " _"] | None = None,
        class_names: Sequence[str] = (),
    ):
        self.images, self.labels = images, labels
        self.class_names = tuple(class_names)
        if (labels is None) != (not self.class_names):
            raise ValueError("labels and class_names go together; give both or none")
        if labels is None:
            return
        if len(labels) != len(images):
            raise ValueError(
                f"there are {len(labels)} labels for {len(images)} images; give one "
                "an image"
            )
        if len(labels) and not -1 <= labels.min() <= labels.max() < len(class_names):
            worst = labels.max() if labels.max() >= len(class_names) else labels.min()
            raise ValueError(
                f"label {worst} has no name; labels lie in 0 ... {len(class_names) - 1}"
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Return image number `index` without a copy, and its label if it has one."""
        item = {"image": self.images[index]}
        return item if self.labels is None else item | {"label": self.labels[index]}


class CachedSource:
    """Another source's images, kept in memory once read, as far as `budget` bytes go.

    From the second epoch on a small set costs no decoding; of a large one the images
    that were read first are kept. Nothing is ever dropped.
    """

    def __init__(self, source: Source, budget: int = 512 * 2**20):
        self.source, self.class_names = source, class_names(source)
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
