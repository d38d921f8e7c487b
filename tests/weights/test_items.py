import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from orbax.checkpoint import v1 as ocp

from deepprism_jax.weights import items as weights_items
from deepprism_jax.weights.items import (
    flatten_names,
    leftovers,
    load_items,
    root_cause,
    save_items,
    save_items_async,
    steps,
)
from deepprism_jax.weights.manifest import MANIFEST, UnreadableError

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


@pytest.mark.parametrize("when", ["at once", "in the background"])
def test_a_save_that_fails_leaves_the_others_and_no_rubbish(saved, monkeypatch, when):
    def full(path, *_, **__):
        Path(path).with_name("8.orbax-checkpoint-tmp").mkdir()
        Path(path).mkdir(exist_ok=True)
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device")

    if when == "at once":
        monkeypatch.setattr("orbax.checkpoint.v1.save_checkpointables_async", full)
    else:
        monkeypatch.setattr(weights_items, "write_manifest", full)
    with pytest.raises(OSError, match="No space left"):
        save_items(saved.parent / "8", {"state": TREE})
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


@pytest.mark.parametrize("spec", [None, PartitionSpec(), PartitionSpec("x")])
def test_what_is_written_is_the_state_at_the_call(tmp_path, spec):
    """The arrays are donated to the next step, while the save goes on."""
    mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
    step = jax.jit(lambda x: x * 2.0, donate_argnums=0)
    x = jnp.arange(1 << 18, dtype=jnp.float32).reshape(8, -1)
    x = step(x if spec is None else jax.device_put(x, NamedSharding(mesh, spec)))
    expected, data = np.array(x), {"batch": 3}
    saving = save_items_async(tmp_path / "1", {"state": {"x": x}, "data": data})
    data["batch"] = 4
    for _ in range(20):
        x = step(x)
    jax.block_until_ready(x)
    saving.result()
    wanted = {"state": target({"x": x}), "data": None}
    found = load_items(tmp_path / "1", wanted)
    np.testing.assert_array_equal(found["state"]["x"], expected)
    assert found["data"] == {"batch": 3}


def test_a_kill_before_the_manifest_leaves_no_checkpoint(saved, monkeypatch):
    def kill(*_):
        raise KeyboardInterrupt  # nothing is put in order after it

    monkeypatch.setattr(weights_items, "write_manifest", kill)
    monkeypatch.setattr(weights_items, "discard", lambda path: None)
    with pytest.raises(KeyboardInterrupt):
        weights_items._finish(saved.parent / "8", save_orbax(saved), {}, None, None)
    assert steps(saved.parent) == [7]
    assert [p.name for p in leftovers(saved.parent)] == ["8"]


def save_orbax(saved):
    return ocp.save_checkpointables_async(saved.parent / "8", {"state": TREE})


def test_steps_knows_complete_from_half_written(tmp_path):
    for name in ("10", "9", "11", "12.saving", "13.orbax-checkpoint-tmp", "notes"):
        (tmp_path / name).mkdir()
        if name in ("9", "10"):
            (tmp_path / name / MANIFEST).touch()
    assert steps(tmp_path) == [9, 10]
    assert [p.name[:2] for p in leftovers(tmp_path)] == ["11", "12", "13"]
    assert steps(tmp_path / "nowhere") == []
    assert leftovers(tmp_path / "nowhere") == []


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
