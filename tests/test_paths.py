import importlib.util
from pathlib import Path

import pytest
from etils import epath

from deepprism_jax import paths
from deepprism_jax.paths import (
    as_path,
    check_reachable,
    files_below,
    is_remote,
    remove_tree,
    write_whole,
)


def test_a_path_is_local_or_in_a_bucket(bucket):
    assert as_path("runs/a") == Path("runs/a")
    assert isinstance(as_path(Path("runs/a")), Path)
    remote = as_path("gs://bucket/runs/a")
    assert isinstance(remote, epath.Path)
    assert as_path(remote) == remote
    assert str(remote / "b") == "gs://bucket/runs/a/b"
    assert not is_remote("runs/a")
    assert is_remote(remote)


@pytest.mark.parametrize("where", ["tmp_path", "bucket"])
def test_files_are_written_whole_listed_and_removed(request, where, tmp_path):
    request.getfixturevalue(where)
    root = as_path(tmp_path / "run" if where == "tmp_path" else "gs://bucket/run")
    write_whole(root / "b" / "c", "text")
    write_whole(root / "a", b"bytes")
    write_whole(root / "a", b"again")
    assert files_below(root) == ["a", "b/c"]
    assert (root / "a").read_bytes() == b"again"
    remove_tree(root / "b")
    remove_tree(root / "nothing")
    assert files_below(root) == ["a"]


def refusal(call, *args):
    with pytest.raises((ValueError, OSError)) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_bucket_without_a_client_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    paths._need_client.cache_clear()
    said = refusal(as_path, "gs://bucket/run")
    assert "gs://bucket/run" in said
    assert "pip install 'deepprism-jax[gcs]'" in said
    assert "s3:// is not supported" in refusal(as_path, "s3://bucket/run")


def test_what_a_client_raises_is_told_in_one_line(bucket, monkeypatch):
    class HttpError(Exception):
        pass

    def exists(self):
        raise HttpError("404\nNot Found")

    monkeypatch.setattr(epath.gpath.PosixGPath, "exists", exists)
    said = refusal(check_reachable, "gs://bucket/run")
    assert "gs://bucket/run cannot be reached: HttpError: 404; see that" in said
    check_reachable("runs/a")
