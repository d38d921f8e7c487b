"""Each process reads its share of an epoch, and the shares together are the epoch."""

import itertools

import numpy as np
import pytest

from deepprism_jax.data import eval_batches, train_batches

IMAGES, BATCH = 48, 8

OPTIONS = {"batch_size": BATCH, "image_size": (2, 2), "channels": 1}


class Watched:
    """Images whose pixels are their number; remembers which were asked for."""

    def __init__(self):
        self.read = set()

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        self.read.add(int(index))
        return {"image": np.full((2, 2, 1), index, np.uint8)}


def shares(make, count):
    """Numbers [process, batch, row] of one epoch, and what each process has read."""
    found, read = [], []
    for process in range(count):
        source = Watched()
        batches = make(source, process_index=process, process_count=count, **OPTIONS)
        epoch = itertools.islice(batches, IMAGES // BATCH)
        found.append([batch["image"][:, 0, 0, 0] for batch in epoch])
        read.append(source.read)
    return np.array(found), read


@pytest.mark.parametrize("make", [train_batches, eval_batches])
@pytest.mark.parametrize("count", [2, 4])
def test_the_shares_of_all_processes_are_the_epoch_in_the_order_of_one(make, count):
    (whole,), _ = shares(make, 1)
    parts, read = shares(make, count)
    assert sorted(whole.flat) == list(range(IMAGES))
    # Consecutive rows of a batch lie on consecutive processes.
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    for part, seen in zip(parts, read, strict=True):
        own = set(part.ravel().tolist())
        assert len(own) == IMAGES // count
        # One image to know the size, and two or three batches ahead.
        assert len(seen - own) <= 1 + 3 * BATCH // count


def test_every_process_has_its_share_of_each_piece():
    options = {**OPTIONS, "pieces": 2}
    whole = next(train_batches(Watched(), **options))["image"][:, 0, 0, 0]
    halves = whole.reshape(2, 2, -1)  # piece, process, row
    for process in range(2):
        batches = train_batches(
            Watched(), process_index=process, process_count=2, **options
        )
        part = next(batches)["image"][:, 0, 0, 0]
        np.testing.assert_array_equal(part, halves[:, process].ravel())
    with pytest.raises(ValueError, match="batch_size=8 must be a multiple of pieces=3"):
        train_batches(Watched(), **{**OPTIONS, "pieces": 3})
