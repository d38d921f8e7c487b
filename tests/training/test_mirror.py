import logging

import numpy as np
import pytest

from deepprism_jax.paths import as_path
from deepprism_jax.training import mirror
from deepprism_jax.training.mirror import Mirror
from deepprism_jax.training.writers import JsonlWriter, PngWriter, Writers

RUN = "gs://bucket/run"


@pytest.fixture
def said():
    return []


def open_mirror(said, *names):
    return Mirror(as_path(RUN), names, say=said.append)


def wait(copies):
    if copies._thread is not None:
        copies._thread.join()


def test_what_grows_is_copied_whole_and_fetched_again(bucket, said):
    first = open_mirror(said, "metrics.jsonl", "pictures")  # nothing is there yet
    writers = Writers(
        [JsonlWriter(first.local / "metrics.jsonl"), PngWriter(first.local), first]
    )
    writers.scalars(1, {"loss": 1.0})
    writers.sync()
    wait(first)
    there = bucket / "run" / "metrics.jsonl"
    assert len(there.read_text().splitlines()) == 1
    writers.scalars(2, {"loss": 0.5})
    writers.images(2, {"pictures": np.zeros((2, 2, 3), np.uint8)})
    assert len(there.read_text().splitlines()) == 1  # not yet half a minute
    writers.close()
    assert len(there.read_text().splitlines()) == 2
    assert not first.local.exists()

    again = open_mirror(said, "metrics.jsonl", "pictures")
    assert (again.local / "pictures" / "00000002.png").is_file()
    JsonlWriter(again.local / "metrics.jsonl", step=1).close()
    again.close()
    assert len(there.read_text().splitlines()) == 1
    assert said == []


def test_it_copies_by_itself_when_it_is_time_and_only_what_changed(
    bucket, said, monkeypatch
):
    monkeypatch.setattr(mirror, "EVERY", 0.0)
    copies = open_mirror(said)
    for name in ("a", "b"):
        (copies.local / name).write_text(name)
    copies.scalars(1, {})
    wait(copies)
    (bucket / "run" / "a").write_text("left alone")
    (copies.local / "b").write_text("more")
    copies.images(2, {})
    wait(copies)
    copies.close()
    assert (bucket / "run" / "a").read_text() == "left alone"
    assert (bucket / "run" / "b").read_text() == "more"


def test_a_bucket_that_fails_is_told_of_once_and_loses_nothing(
    bucket, said, monkeypatch, caplog
):
    copies = open_mirror(said)
    (copies.local / "a").write_text("a")
    with monkeypatch.context() as patch:

        def refuse(*_):
            raise PermissionError("403\nForbidden")

        patch.setattr(type(copies._remote), "write_bytes", refuse)
        for _ in range(3):
            copies.push(now=True)
            wait(copies)
        assert said == ["log files are not copied: 403"]
    for _ in range(2):
        copies.push(now=True)
        wait(copies)
    assert said[1:] == [f"log files are copied to {RUN} again"]
    assert (bucket / "run" / "a").read_text() == "a"

    (copies.local / "a").write_text("changed")
    monkeypatch.setattr(type(copies._remote), "write_bytes", refuse)
    with caplog.at_level(logging.WARNING):
        copies.close()
    assert str(copies.local) in caplog.text
    assert (copies.local / "a").read_text() == "changed"
