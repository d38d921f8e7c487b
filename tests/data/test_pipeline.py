"""Batches are functions of seed and position, whoever makes them and whenever."""

import itertools
import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepprism_jax.data import (
    ArraySource,
    UnreadableImageError,
    eval_batches,
    train_batches,
)

LAYOUT = {"image_size": (3, 4), "channels": 1}
quick = settings(max_examples=20, deadline=None)

# Threads that read ahead draw from `random` while hypothesis looks at its state.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Do not use the `random` module inside strategies"
)


def numbered(count: int) -> ArraySource:
    """Images whose pixels count 0 to 41 in reading order, 42 more in every next one."""
    pixels = np.arange(6 * 7, dtype=np.uint8).reshape(6, 7, 1)
    return ArraySource(np.stack([pixels + 42 * i for i in range(count)]))


class Broken:
    """Images 1, 2 and 5 of `numbered(6)` cannot be read."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        if index in (1, 2, 5):
            raise UnreadableImageError(f"image{index}.png", "broken")
        return numbered(6)[index]


def take(batches, count: int) -> np.ndarray:
    return np.stack([batch["image"] for batch in itertools.islice(batches, count)])


def which(images: np.ndarray) -> np.ndarray:
    """Number of the source image of every crop."""
    return images.max((-3, -2, -1)) // 42


def test_shape_and_type():
    batch = next(train_batches(numbered(5), batch_size=4, **LAYOUT))
    assert batch.keys() == {"image"}
    assert batch["image"].shape == (4, 3, 4, 1)
    assert batch["image"].dtype == np.uint8


@quick
@given(st.integers(1, 6), st.integers(0, 2**32 - 1), st.integers(1, 7))
def test_same_seed_same_batches(images, seed, batch_size):
    options = {"batch_size": batch_size, "seed": seed, **LAYOUT}
    first, second = (take(train_batches(numbered(images), **options), 3) for _ in "ab")
    np.testing.assert_array_equal(first, second)


def test_other_seed_other_batches():
    first, second = (
        take(train_batches(numbered(6), batch_size=6, seed=seed, **LAYOUT), 3)
        for seed in (0, 1)
    )
    assert (first != second).any()


@quick
@given(st.integers(1, 6), st.integers(1, 4), st.sampled_from([2, 3, 4]))
def test_processes_share_one_global_batch(images, rows, count):
    options = {"batch_size": rows * count, "seed": 3, **LAYOUT}
    whole = take(train_batches(numbered(images), **options), 3)
    parts = [
        take(
            train_batches(
                numbered(images), process_index=i, process_count=count, **options
            ),
            3,
        )
        for i in range(count)
    ]
    np.testing.assert_array_equal(whole, np.concatenate(parts, axis=1))


@quick
@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 5))
def test_resumed_iterator_continues_with_the_next_batch(before, dirty, batch_size):
    options = {"batch_size": batch_size, "seed": 5, **LAYOUT}
    run = train_batches(numbered(4), **options)
    take(run, before) if before else None
    state = json.loads(json.dumps(run.get_state()))
    resumed = train_batches(numbered(4), **options)
    take(resumed, dirty) if dirty else None
    resumed.set_state(state)
    np.testing.assert_array_equal(take(resumed, 4), take(run, 4))
    assert resumed.get_state() == run.get_state()


def test_state_counts_batches_handed_out_not_those_read_ahead():
    run = train_batches(numbered(4), batch_size=2, **LAYOUT)
    assert run.get_state() == {"batch": 0, "images": 4}
    take(run, 3)
    assert run.get_state() == {"batch": 3, "images": 4}


def test_state_goes_on_under_another_number_of_processes():
    options = {"batch_size": 4, **LAYOUT}
    run = train_batches(numbered(5), process_index=0, process_count=2, **options)
    take(run, 3)
    alone = train_batches(numbered(5), **options)
    alone.set_state(run.get_state())
    np.testing.assert_array_equal(take(alone, 2)[:, :2], take(run, 2))


@pytest.mark.parametrize("state", [{}, {"batch": 3}, {"batch": "3", "images": 4}])
def test_foreign_state_is_refused(state):
    with pytest.raises(ValueError, match=r"no position of training data"):
        train_batches(numbered(4), batch_size=2, **LAYOUT).set_state(state)


def test_changed_source_is_warned_of(caplog):
    state = train_batches(numbered(4), batch_size=2, **LAYOUT).get_state()
    with caplog.at_level(logging.WARNING):
        train_batches(numbered(5), batch_size=2, **LAYOUT).set_state(state)
    assert "had 4 images when the position was saved and has 5 now" in caplog.text


@quick
@given(st.integers(1, 6), st.integers(1, 7))
def test_every_epoch_sees_every_image_once(images, batch_size):
    run = train_batches(numbered(images), batch_size=batch_size, **LAYOUT)
    seen = which(take(run, 2 * images)).ravel()
    for epoch in seen[: len(seen) // images * images].reshape(-1, images):
        assert sorted(epoch) == list(range(images))


def test_crops_are_crops_and_reach_every_corner_both_ways():
    (image,) = numbered(1).images
    crops = [image[y : y + 3, x : x + 4] for y in range(4) for x in range(4)]
    crops += [crop[:, ::-1] for crop in crops]
    seen = {
        x.tobytes()
        for x in take(train_batches(numbered(1), batch_size=500, **LAYOUT), 1)[0]
    }
    assert seen == {crop.tobytes() for crop in crops}


def test_no_flip():
    run = train_batches(numbered(1), batch_size=200, flip=False, **LAYOUT)
    (images,) = take(run, 1)
    assert (np.diff(images.astype(int), axis=2) == 1).all()


def test_center_crop():
    (image,) = numbered(1).images
    run = train_batches(numbered(1), batch_size=9, crop="center", flip=False, **LAYOUT)
    (images,) = take(run, 1)
    np.testing.assert_array_equal(images, np.stack([image[2:5, 2:6]] * 9))


def test_threads_and_memory_give_the_same_batches():
    class OnDisk(ArraySource):
        in_memory = False

    options = {"batch_size": 8, **LAYOUT}
    in_memory = take(train_batches(numbered(5), **options), 4)
    on_disk = take(train_batches(OnDisk(numbered(5).images), **options), 4)
    np.testing.assert_array_equal(in_memory, on_disk)


def test_channels_are_converted():
    batch = next(
        train_batches(numbered(2), batch_size=2, image_size=(3, 4), channels=3)
    )
    assert (batch["image"] == batch["image"][..., :1]).all()
    assert batch["image"].shape[-1] == 3


def test_training_takes_the_next_readable_image(caplog):
    with caplog.at_level(logging.WARNING):
        run = train_batches(Broken(), batch_size=6, **LAYOUT)
        whole = take(train_batches(numbered(6), batch_size=6, **LAYOUT), 4)
        seen = which(take(run, 4))
    instead = np.array([0, 3, 3, 3, 4, 0])
    np.testing.assert_array_equal(seen, instead[which(whole)])
    assert sorted(r.getMessage()[-18:] for r in caplog.records) == [
        "image1.png: broken",
        "image2.png: broken",
        "image5.png: broken",
    ]


def test_evaluation_masks_unreadable_images():
    (batch,) = eval_batches(Broken(), batch_size=6, **LAYOUT)
    np.testing.assert_array_equal(batch["mask"], [1, 0, 0, 1, 1, 0])
    np.testing.assert_array_equal(which(batch["image"])[batch["mask"]], [0, 3, 4])
    np.testing.assert_array_equal(batch["index"][batch["mask"]], [0, 3, 4])


def test_source_without_a_readable_image_fails_before_training():
    class Gone(Broken):
        def __getitem__(self, index):
            raise UnreadableImageError("x.png", "gone")

    for batches in (train_batches, eval_batches):
        with pytest.raises(ValueError, match="6 images in a row cannot be read"):
            batches(Gone(), batch_size=2, **LAYOUT)


def test_error_of_a_source_reaches_the_caller():
    class Late(ArraySource):
        def __getitem__(self, index):
            if index == 3:
                raise OSError("disk on fire")
            return super().__getitem__(index)

    run = train_batches(Late(numbered(4).images), batch_size=4, **LAYOUT)
    with pytest.raises(OSError, match="disk on fire"):
        next(run)


def test_evaluation_takes_all_in_order_and_pads():
    batches = eval_batches(numbered(5), batch_size=2, **LAYOUT)
    assert len(batches) == 3
    assert batches.images == 5
    images, mask = (
        np.concatenate([batch[key] for batch in batches]) for key in ("image", "mask")
    )
    np.testing.assert_array_equal(mask, [1, 1, 1, 1, 1, 0])
    assert (images[5] == 0).all()
    np.testing.assert_array_equal(images[:5], numbered(5).images[:, 2:5, 2:6])


def test_evaluation_gives_labels_where_there_are_classes():
    class Labelled(Broken):
        class_names = ("a", "b", "c")

        def __getitem__(self, index):
            return super().__getitem__(index) | {"label": index // 2}

    batches = list(eval_batches(Labelled(), batch_size=4, **LAYOUT))
    labels = np.concatenate([batch["label"] for batch in batches])
    np.testing.assert_array_equal(labels, [0, 0, 0, 1, 2, 0, 0, 0])
    assert labels.dtype == np.int32
    (batch,) = eval_batches(numbered(2), batch_size=2, **LAYOUT)
    assert batch.keys() == {"image", "mask", "index"}


@quick
@given(
    st.integers(1, 6), st.integers(1, 3), st.sampled_from([1, 2, 3]), st.integers(0, 7)
)
def test_evaluation_is_shared_out(images, rows, count, limit):
    options = {"batch_size": rows * count, "limit": limit, **LAYOUT}
    whole = list(eval_batches(numbered(images), **options))
    parts = [
        list(
            eval_batches(
                numbered(images), process_index=i, process_count=count, **options
            )
        )
        for i in range(count)
    ]
    for key in ("image", "mask", "index"):
        np.testing.assert_array_equal(
            np.stack([batch[key] for batch in whole]),
            np.stack(
                [
                    np.concatenate([part[key] for part in batch])
                    for batch in zip(*parts, strict=True)
                ]
            ),
        )
    assert sum(batch["mask"].sum() for batch in whole) == min(limit or images, images)
    for batch in whole:
        mask = batch["mask"]
        np.testing.assert_array_equal(which(batch["image"][mask]), batch["index"][mask])


def test_limit_is_evenly_spaced():
    (batch,) = eval_batches(numbered(6), batch_size=3, limit=3, **LAYOUT)
    np.testing.assert_array_equal(which(batch["image"]), [0, 2, 4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be a positive multiple"),
        ({"batch_size": 5, "process_count": 2}, "batch_size=5 must be a positive mult"),
        ({"process_index": 2, "process_count": 2}, "process_index=2 must be below"),
        ({"channels": 2}, "channels=2; choose 1"),
        ({"image_size": (7, 7)}, "is 6x7, smaller than image_size 7x7"),
    ],
)
@pytest.mark.parametrize("batches", [train_batches, eval_batches])
def test_bad_arguments_of_both(batches, change, message):
    with pytest.raises(ValueError, match=message):
        batches(numbered(4), **{"batch_size": 4, **LAYOUT, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": "left"}, "crop='left'; choose random or center"),
        ({"seed": -1}, "seed=-1; choose one in"),
        ({"seed": 2**32}, "seed=4294967296; choose one in"),
    ],
)
def test_bad_arguments_of_training(change, message):
    with pytest.raises(ValueError, match=message):
        train_batches(numbered(4), batch_size=4, **{**LAYOUT, **change})


def test_bad_limit():
    with pytest.raises(ValueError, match="limit=-1; choose"):
        eval_batches(numbered(4), batch_size=4, limit=-1, **LAYOUT)


@pytest.mark.parametrize("batches", [train_batches, eval_batches])
def test_empty_source(batches):
    with pytest.raises(ValueError, match="holds no images"):
        batches(ArraySource([]), batch_size=4, **LAYOUT)


def test_float_images_are_refused():
    class Floats(ArraySource):
        def __getitem__(self, index):
            return {"image": np.zeros((6, 7, 1), np.float32)}

    with pytest.raises(ValueError, match=r"float32 \[6, 7, 1\]; sources give uint8"):
        train_batches(Floats(numbered(2).images), batch_size=4, **LAYOUT)
