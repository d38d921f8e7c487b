"""From a source to batches: endless and random to train, finite to evaluate.

A batch is a pure function of its number, so it is the same whoever computes it and
whenever; Grain maps the function over the numbers, reads ahead and keeps the position.
Pixels stay uint8; the device makes them floats (`deepprism_jax.ops.pixels`).
"""

import logging
from collections.abc import Iterator, Mapping
from operator import index
from typing import Any

import grain
import numpy as np

from deepprism_jax.data.cropping import cut
from deepprism_jax.data.images import check_layout
from deepprism_jax.data.order import Share
from deepprism_jax.data.reading import Reader
from deepprism_jax.data.source import Source, class_names

# One batch is read while the last one waits, both beside the step.
READ_AHEAD = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)

# More batches than any run takes, few enough for positions to stay within 64 bits.
ENDLESS = 2**40

_log = logging.getLogger(__name__)


def train_batches(
    source: Source,
    *,
    batch_size: int,
    image_size: tuple[int, int],
    channels: int = 3,
    seed: int = 0,
    crop: str = "random",
    flip: bool = True,
    labels: bool = False,
    pieces: int = 1,
    process_index: int = 0,
    process_count: int = 1,
) -> "TrainBatches":
    """Return an endless iterator of `{"image": uint8 [b, height, width, channels]}`.

    Every epoch is a new permutation of the source, and a batch may span two epochs.
    `batch_size` counts all processes; this one gets its `b = batch_size /
    process_count` rows, those of each piece one after the other, and the rows of all
    processes together are the same pieces of the same batch whatever their number.

    Args:
      source: Any source; see `make_source`.
      batch_size: Images a batch over all processes.
      image_size: Height and width of the crops.
      channels: 1, 3 or 4; images are converted.
      seed: Order of images, crops and flips, in [0, 2**32).
      crop: `random` or `center`.
      flip: Mirror left-right at random.
      labels: Give `"label"`, int32 [b], as well; -1 where an image has none.
      pieces: Parts of a batch that are computed one after the other, of each of which
        every process has its share.
      process_index: This process, `jax.process_index()`.
      process_count: Number of processes, `jax.process_count()`.

    Raises:
      ValueError: one line that names the value and the remedy.
    """
    if crop not in ("random", "center"):
        raise ValueError(f"crop={crop!r}; choose random or center")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed}; choose one in [0, 2**32)")
    _check_batches(
        source, batch_size, image_size, channels, process_index, process_count
    )
    if pieces < 1 or batch_size % (pieces * process_count):
        raise ValueError(
            f"batch_size={batch_size} must be a multiple of pieces={pieces} x the "
            f"{process_count} processes"
        )
    reader = Reader(source, image_size, channels)
    reader.read_item_from(
        0
    )  # A source that cannot serve this size fails here, not later.
    rows = batch_size // process_count
    share = Share(rows // pieces, pieces, process_index, process_count)

    def assemble(step: int) -> dict[str, np.ndarray]:
        indices, random = share.of_batch(step, seed=seed, images=len(source))
        if crop == "center":
            random[:, :2] = 0.5
        out = np.empty((rows, *image_size, channels), np.uint8)
        classes = np.zeros(rows, np.int32)

        def fill(row: int, index: int) -> None:
            top, left, side, _ = random[row].tolist()
            item = reader.read_item_from(index)
            cut(item["image"], out[row], top=top, left=left, mirror=flip and side < 0.5)
            classes[row] = item.get("label", -1)

        reader.for_each(fill, indices.tolist())
        return {"image": out, "label": classes} if labels else {"image": out}

    batches = grain.MapDataset.range(ENDLESS).map(assemble)
    return TrainBatches(iter(batches.to_iter_dataset(READ_AHEAD)), len(source))


class TrainBatches:
    """The endless iterator of `train_batches`; its position can be saved.

    Batches are read ahead by a thread; the position is that of the batches handed
    out, so a restored iterator continues with exactly the next one.
    """

    def __init__(self, batches: grain.DatasetIterator, images: int):
        self._batches, self._images = batches, images

    def __iter__(self) -> "TrainBatches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        return next(self._batches)

    def get_state(self) -> dict[str, int]:
        """Return the position as a dict for JSON: `batch`, `images` of the source."""
        return {
            "batch": self._batches.get_state()["next_index"],
            "images": self._images,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a position; seed, batch size and source must be as they were.

        A source that has grown or shrunk since is warned of: the run goes on, but it
        is no longer the run that it was.

        Raises:
          ValueError: `state` did not come from `get_state`.
        """
        try:
            batch, images = index(state["batch"]), index(state["images"])
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{state!r} is no position of training data; it needs 'batch' and "
                "'images' as given by get_state()"
            ) from error
        if images != self._images:
            _log.warning(
                "the source had %d images when the position was saved and has %d now; "
                "training goes on in another order of images",
                images,
                self._images,
            )
        self._batches.set_state({"next_index": batch})


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    image_size: tuple[int, int],
    channels: int = 3,
    limit: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> "EvalBatches":
    """Return the whole source once, in order and cut at the centre, as masked batches.

    A batch is `{"image": uint8 [b, height, width, channels], "mask": bool [b], "index":
    int64 [b]}`, where an image's index is its place in the source, and has a `"label"`,
    int32 [b], where the source has `class_names`. The last batch is filled up with
    black images whose mask is False and whose label is 0; so is a file that turns out
    to be unreadable. `batch_size` counts all processes, and this one gets its
    `b = batch_size / process_count` rows of every batch, so that all processes see
    the same number of batches.

    Args:
      source: Any source; see `make_source`.
      batch_size: Images a batch over all processes.
      image_size: Height and width of the crops.
      channels: 1, 3 or 4; images are converted.
      limit: Take this many images, evenly spaced over the source; 0 takes all.
      process_index: This process, `jax.process_index()`.
      process_count: Number of processes, `jax.process_count()`.

    Raises:
      ValueError: one line that names the value and the remedy.
    """
    if limit < 0:
        raise ValueError(f"limit={limit}; choose a number of images, or 0 for all")
    _check_batches(
        source, batch_size, image_size, channels, process_index, process_count
    )
    reader = Reader(source, image_size, channels)
    reader.read_item_from(0)
    count = min(limit, len(source)) if limit else len(source)
    chosen = np.arange(count) * len(source) // count
    rows = batch_size // process_count
    labelled = bool(class_names(source))

    def assemble(step: int) -> dict[str, np.ndarray]:
        first = (step * process_count + process_index) * rows
        out = np.zeros((rows, *image_size, channels), np.uint8)
        mask, places = np.zeros(rows, bool), np.zeros(rows, np.int64)
        labels = np.zeros(rows, np.int32)

        def fill(row: int, index: int) -> None:
            item = reader.read_item(index)
            if item is not None:
                cut(item["image"], out[row])
                mask[row], places[row] = True, index
                if labelled:
                    labels[row] = item["label"]

        reader.for_each(fill, chosen[first : first + rows].tolist())
        batch = {"image": out, "mask": mask, "index": places}
        return batch | {"label": labels} if labelled else batch

    steps = grain.MapDataset.range(-(-count // batch_size))
    return EvalBatches(steps.map(assemble), count, rows)


class EvalBatches:
    """The batches of `eval_batches`: can be iterated again, and know their number."""

    def __init__(self, batches: grain.MapDataset, images: int, rows: int):
        self._batches, self.images, self.rows = batches, images, rows

    def __len__(self) -> int:
        """Return the number of batches.

        `images` is the number of images, `rows` that of the rows of a batch here.
        """
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self.between(0, len(self))

    def between(self, first: int, last: int) -> Iterator[dict[str, np.ndarray]]:
        """Return the batches from number `first` to before `last`; no other is read."""
        return iter(self._batches[first:last].to_iter_dataset(READ_AHEAD))


def _check_batches(
    source: Source,
    batch_size: int,
    image_size: tuple[int, int],
    channels: int,
    process_index: int,
    process_count: int,
) -> None:
    check_layout(image_size, channels)
    if not len(source):
        raise ValueError("the source holds no images")
    if not 0 <= process_index < process_count:
        raise ValueError(
            f"process_index={process_index} must be below process_count={process_count}"
        )
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"batch_size={batch_size} must be a positive multiple of the "
            f"{process_count} processes"
        )
