"""Latents on disk: the same rows whoever encodes them, exact moments, refusals."""

import json

import numpy as np
import pytest

from deepprism_jax.data import ArraySource, UnreadableImageError, eval_batches
from deepprism_jax.training.ldm.cache import LatentCache, Part, write_part
from deepprism_jax.training.ldm.config import LatentDataConfig
from deepprism_jax.training.ldm.encoding import latents_of
from deepprism_jax.training.ldm.latents import LatentBatches

IMAGES, SIDE = 7, 4
PIXELS = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3), np.uint8)
LABELS = np.arange(IMAGES) % 3


class Damaged(ArraySource):
    """Image 2 cannot be read."""

    def __getitem__(self, index):
        if index == 2:
            raise UnreadableImageError("c.png", "is truncated")
        return super().__getitem__(index)


def encode(images):
    mean = images[:, ::2, ::2].astype(np.float32) / 64
    return mean, 0.1 + mean / 8


def source(labels=LABELS, names=("a", "b", "c")):
    return Damaged(PIXELS, labels, names)


def written(folder, processes, flips=2):
    for index in range(processes):
        batches = eval_batches(
            source(),
            batch_size=4,
            image_size=(SIDE, SIDE),
            process_index=index,
            process_count=processes,
        )
        rows = len(batches) * batches.rows
        part = Part(index, processes)
        write_part(folder, part, {}, batches, rows, encode, flips=flips)
    return LatentCache(folder, processes)


@pytest.mark.parametrize("processes", [1, 2])
def test_rows_are_those_of_the_images_whoever_encoded_them(tmp_path, processes):
    cache = written(tmp_path, processes)
    kept = np.delete(np.arange(IMAGES), 2)
    assert len(cache) == len(kept)
    places = np.array([4, 0, 2, 5])
    mirrored = np.array([True, False, False, True])
    rows = cache.rows(places, mirrored)
    images = PIXELS[kept[places]]
    images[mirrored] = images[mirrored][:, :, ::-1]
    mean, std = encode(images)
    np.testing.assert_array_equal(rows["mean"], mean.astype(np.float16))
    np.testing.assert_array_equal(rows["std"], std.astype(np.float16))
    np.testing.assert_array_equal(rows["label"], LABELS[kept[places]])


def test_moments_are_those_of_what_is_drawn(tmp_path):
    cache = written(tmp_path, 2)
    kept = np.delete(PIXELS, 2, axis=0)
    both = np.concatenate([kept, kept[:, :, ::-1]])
    mean, std = (x.reshape(-1, 3).astype(np.float64) for x in encode(both))
    found_mean, found_std = cache.moments()
    np.testing.assert_allclose(found_mean, mean.mean(0), rtol=1e-6)
    expected = np.sqrt(mean.var(0) + np.mean(std**2, 0))
    np.testing.assert_allclose(found_std, expected, rtol=1e-6)


def test_what_ends_an_encoding_leaves_nothing(tmp_path):
    batches = eval_batches(source(), batch_size=4, image_size=(SIDE, SIDE))

    def proceed(done):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_part(
            tmp_path, Part(0, 1), {}, batches, 8, encode, flips=1, proceed=proceed
        )
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="gives latents that are no numbers"):
        write_part(
            tmp_path, Part(0, 1), {}, batches, 8, lambda x: (x * np.nan, None), flips=1
        )
    assert list(tmp_path.iterdir()) == []


def latents(folder, autoencoder="A", part=None, batch=4, **about):
    data = LatentDataConfig(latents=str(folder), image_size=(SIDE, SIDE))
    part, images = part or Part(0, 1), source(**about)
    batches = eval_batches(
        images,
        batch_size=batch,
        image_size=(SIDE, SIDE),
        process_index=part.index,
        process_count=part.count,
    )
    return latents_of(
        data, "train", images, batches, part, autoencoder=autoencoder, flip=True
    )


def ended(latents, rows):
    """Encode until so many rows are done."""

    def end(done):
        if done >= rows:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        latents.make(encode, end)


def test_latents_of_another_autoencoder_are_refused(tmp_path):
    ours = latents(tmp_path)
    assert not ours.check()
    ours.make(encode, lambda done: None)
    assert latents(tmp_path).check()
    with pytest.raises(ValueError, match=r"other autoencoder \(A, here B\): choose"):
        latents(tmp_path, "B").check()
    with pytest.raises(ValueError, match="other classes"):
        latents(tmp_path, names=("a", "b", "d")).check()
    with pytest.raises(ValueError, match="other fingerprint"):
        latents(tmp_path, labels=LABELS[::-1].copy()).check()


@pytest.mark.parametrize("lost", [None, "mean.npy", "json"])
def test_an_encoding_that_was_ended_goes_on_where_it_was(tmp_path, monkeypatch, lost):
    monkeypatch.setattr("deepprism_jax.training.ldm.latents.PIECE", 4)
    whole = latents(tmp_path / "whole")
    whole.make(encode, lambda done: None)
    ours, begun = latents(tmp_path / "ended"), []
    ended(ours, 4)
    assert not ours.check()
    if lost:
        next(ours.folder.glob(f"part-00000-of-00002.{lost}")).unlink()
    ours.make(encode, begun.append)
    assert begun == ([0, 4] if lost else [4])
    assert ours.check()
    for name in ("mean", "std", "label"):
        rows = [x.cache().rows(np.arange(6), np.arange(6) % 2) for x in (whole, ours)]
        np.testing.assert_array_equal(rows[0][name], rows[1][name])
    np.testing.assert_array_equal(whole.cache().moments(), ours.cache().moments())


@pytest.mark.parametrize("others", [{"autoencoder": "B"}, {"batch": 2}])
def test_pieces_of_another_making_are_not_taken(tmp_path, monkeypatch, others):
    monkeypatch.setattr("deepprism_jax.training.ldm.latents.PIECE", 4)
    ended(latents(tmp_path, **others), 4)
    ours, begun = latents(tmp_path), []
    ours.make(encode, begun.append)
    assert begun == [0, 4]
    assert ours.check()


def test_latents_of_two_autoencoders_are_no_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("deepprism_jax.training.ldm.latents.PIECE", 4)
    theirs = latents(tmp_path, "B")
    theirs.make(encode, lambda done: None)
    next(theirs.folder.glob("part-00000*.mean.npy")).write_bytes(b"")
    ours = latents(tmp_path)
    ended(ours, 4)
    assert not ours.check()
    assert not theirs.check()
    ours.make(encode, lambda done: None)
    assert ours.check()


def test_what_is_being_replaced_has_no_record(tmp_path):
    theirs = latents(tmp_path, "B")
    theirs.make(encode, lambda done: None)
    next(theirs.folder.glob("part-00000*.mean.npy")).unlink()
    ended(latents(tmp_path), 0)
    assert not list(theirs.folder.glob("*.json"))


@pytest.mark.parametrize("processes", [(1, 2), (2, 1)])
def test_other_processes_begin_again_and_lose_nothing(tmp_path, monkeypatch, processes):
    # Parts have the same names with one process and with two.
    monkeypatch.setattr("deepprism_jax.training.ldm.latents.PIECE", 4)
    first, second = processes
    latents(tmp_path, part=Part(0, first)).make(encode, lambda done: None, [0])
    assert len(list(tmp_path.glob("*/part-00000-of-00002.json"))) == 1
    ours = [latents(tmp_path, part=Part(n, second)) for n in range(second)]
    missing = ours[0].missing()
    for one in ours:
        one.make(encode, lambda done: None, missing)
    assert ours[0].check()
    cache = ours[0].cache()
    np.testing.assert_array_equal(
        cache.rows(np.arange(IMAGES - 1), np.zeros(IMAGES - 1, bool))["label"],
        np.delete(LABELS, 2),
    )


def test_what_another_number_of_processes_made_is_read_and_damage_is_found(tmp_path):
    ours = latents(tmp_path)
    ours.make(encode, lambda done: None)
    assert latents(tmp_path, part=Part(1, 2)).check()
    mean = next(ours.folder.glob("*.mean.npy"))
    mean.write_bytes(mean.read_bytes()[:-8])
    assert not latents(tmp_path).check()
    mean.unlink()
    assert not latents(tmp_path).check()
    next(ours.folder.glob("*.json")).write_text("{")
    with pytest.raises(ValueError, match="is damaged: delete"):
        latents(tmp_path).check()


def test_batches_go_on_where_they_were_and_are_shared_out(tmp_path):
    made = latents(tmp_path)
    made.make(encode, lambda done: None)

    def stream(**share):
        return LatentBatches(made, batch_size=4, seed=3, labels=True, **share)

    whole = stream()
    first = [next(whole) for _ in range(5)]
    # Of the first epoch each of the six latents comes once, mirrored or not.
    labels = np.concatenate([batch["label"] for batch in first])[: IMAGES - 1]
    np.testing.assert_array_equal(np.sort(labels), np.sort(np.delete(LABELS, 2)))
    again = stream()
    again.set_state(json.loads(json.dumps(stream_state(stream(), 2))))
    np.testing.assert_array_equal(next(again)["mean"], first[2]["mean"])
    halves = [next(stream(process_index=n, process_count=2)) for n in range(2)]
    for name in ("mean", "std", "label"):
        both = np.concatenate([half[name] for half in halves])
        np.testing.assert_array_equal(both, first[0][name])


def stream_state(batches, taken):
    for _ in range(taken):
        next(batches)
    return batches.get_state()
