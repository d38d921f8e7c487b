import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepprism_jax.weights.items import (
    MANIFEST,
    UnreadableError,
    flatten_names,
    half_written,
    load_items,
    replace_directory,
    root_cause,
    save_items,
    steps,
)

TREE = {
    "a": {0: jnp.arange(40000.0), 1: jnp.ones((3, 2), jnp.bfloat16)},
    "key": jnp.array([1, 2], jnp.uint32),
    "empty": {},
}


def target(tree):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
    )


@pytest.fixture
def saved(tmp_path):
    save_items(tmp_path / "7", {"state": TREE, "config": {"a": [1, None, "b"]}})
    return tmp_path / "7"


def test_items_come_back_as_they_were(saved):
    items = load_items(saved, {"state": target(TREE), "config": None})
    assert items["config"] == {"a": [1, None, "b"]}
    assert jax.tree.structure(items["state"]) == jax.tree.structure(TREE)
    for found, expected in zip(
        jax.tree.leaves(items["state"]), jax.tree.leaves(TREE), strict=True
    ):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_one_item_is_read_without_the_others(saved):
    shutil.rmtree(saved / "state")
    assert load_items(saved, {"config": None})["config"]["a"][0] == 1


def test_saving_again_replaces(saved):
    save_items(saved, {"state": {"x": jnp.zeros(3)}})
    assert (
        load_items(saved, {"state": target({"x": jnp.ones(3)})})["state"]["x"][0] == 0
    )
    with pytest.raises(UnreadableError, match="no item 'config'"):
        load_items(saved, {"config": None})


def every_file(directory):
    return [p for p in directory.rglob("*") if p.is_file()]


def test_a_cut_a_changed_and_a_missing_file_are_each_found(saved):
    """For every file of the checkpoint: nothing on disk is outside the manifest."""
    wanted = {"state": target(TREE), "config": None}
    for file in every_file(saved):
        content = file.read_bytes()
        if not content:
            continue
        middle = len(content) // 2
        flipped = bytes([content[middle] ^ 1])
        for damaged in (
            content[:middle],
            content[:middle] + flipped + content[middle + 1 :],
        ):
            file.write_bytes(damaged)
            with pytest.raises(UnreadableError):
                load_items(saved, wanted)
        file.unlink()
        with pytest.raises(UnreadableError, match="missing"):
            load_items(saved, wanted)
        file.write_bytes(content)
    assert (saved / MANIFEST) in every_file(saved)
    load_items(saved, wanted)


def test_another_structure_or_shape_is_unreadable(saved):
    for wrong in (
        {"a": TREE["a"]},
        {**TREE, "more": jnp.zeros(2)},
        {**TREE, "key": jnp.zeros(3, jnp.uint32)},
        {**TREE, "key": jnp.zeros(2, jnp.int32)},
    ):
        with pytest.raises(UnreadableError) as caught:
            load_items(saved, {"state": target(wrong)})
        assert "\n" not in str(caught.value)


def test_a_save_that_fails_leaves_the_old_one_and_no_rubbish(saved, monkeypatch):
    def full(*_, **__):
        (saved.parent / "7.saving.orbax-checkpoint-tmp").mkdir()
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device")

    monkeypatch.setattr("orbax.checkpoint.v1.save_checkpointables", full)
    with pytest.raises(OSError, match="No space left"):
        save_items(saved, {"state": TREE})
    assert [p.name for p in saved.parent.iterdir()] == ["7"]
    load_items(saved, {"state": target(TREE)})


@pytest.fixture
def small_files():
    """Let no file of this process grow beyond 64 KiB, as on a disk that fills up."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_what_a_writer_is_denied_is_an_oserror_in_one_line(tmp_path):
    noise = jax.random.normal(jax.random.key(0), (100_000,))
    with pytest.raises(OSError, match=r"(?i)file too large|efbig") as caught:
        save_items(tmp_path / "3", {"state": {"x": noise}})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("leftover", [False, True])
def test_a_directory_is_gone_only_once_another_has_its_name(tmp_path, leftover):
    path, new = tmp_path / "7", tmp_path / "new"
    path.mkdir()
    (path / "old").touch()
    if leftover:
        (tmp_path / "7.deleted" / "part").mkdir(parents=True)
    with pytest.raises(FileNotFoundError):
        replace_directory(path, new)
    assert (path / "old").exists()
    new.mkdir()
    replace_directory(path, new)
    assert [p.name for p in tmp_path.rglob("*")] == ["7"]


def test_a_kill_while_replacing_leaves_both_complete(saved, monkeypatch):
    def kill(path, target):
        if path.name.endswith(".saving"):
            raise KeyboardInterrupt
        return rename(path, target)

    rename = Path.rename
    monkeypatch.setattr(Path, "rename", kill)
    with pytest.raises(KeyboardInterrupt):
        save_items(saved, {"state": TREE})
    names = {"7.deleted", "7.saving"}
    assert {p.name for p in saved.parent.iterdir()} == names
    for name in names:
        load_items(saved.parent / name, {"state": target(TREE)})


def test_steps_knows_complete_from_half_written(tmp_path):
    for name in ("10", "9", "12.saving", "13.saving.orbax-checkpoint-tmp", "notes"):
        (tmp_path / name).mkdir()
    assert steps(tmp_path) == [9, 10]
    assert [p.name[:2] for p in half_written(tmp_path)] == ["12", "13"]
    assert [p.name[:2] for p in half_written(tmp_path, "12")] == ["12"]
    assert steps(tmp_path / "nowhere") == []
    assert half_written(tmp_path / "nowhere") == []


def test_names_are_dotted():
    flat = flatten_names({"encoder": {0: {"bias": 1}, 1: {"bias": 2}}, "z": 3})
    assert flat == {"encoder.0.bias": 1, "encoder.1.bias": 2, "z": 3}


def test_root_cause_is_one_line():
    cause = KeyError("first\nsecond")
    error = ValueError("later")
    error.__cause__ = cause
    assert root_cause(error) == root_cause(cause)
    assert root_cause(ValueError("first\nsecond")) == "first"
    assert root_cause(OSError()) == "OSError"
    long = root_cause(ValueError(f"EXHAUSTED: {'x' * 1000}: No space left on device"))
    assert len(long) <= 250
    assert long.startswith("EXHAUSTED")
    assert long.endswith("No space left on device")
