import errno

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from deepprism_jax.training import checkpoints
from deepprism_jax.training.checkpoints import Checkpoints
from deepprism_jax.training.preflight import PreflightError
from deepprism_jax.training.sharding import make_mesh
from deepprism_jax.weights import items as weights_items
from deepprism_jax.weights.items import save_items, steps


def state(step):
    return {"params": {"w": jnp.full((8, 4), float(step))}, "step": jnp.int32(step)}


def items(step):
    return {"state": state(step), "data": {"batch": step}}


def targets(sharding=None):
    def target(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding or x.sharding)

    return {"state": jax.tree.map(target, state(0)), "data": None}


class Manager(Checkpoints):
    """Checkpoints in a directory, with what was said."""

    def __init__(self, directory, keep=2, keep_best=0):
        self.said = []
        super().__init__(
            directory, keep=keep, keep_best=keep_best, say=self.said.append
        )

    def save_now(self, step, items, score=None):
        self.save(step, items, score=score)
        return self.wait()


def cut_largest_file(directory):
    files = [p for p in (directory / "state").rglob("*") if p.is_file()]
    largest = max(files, key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])


def restored(directory, **options):
    manager = Manager(directory, **options)
    step, found = manager.restore(targets())
    assert found["data"] == {"batch": step}
    assert found["state"]["step"] == step
    np.testing.assert_array_equal(found["state"]["params"]["w"], np.full((8, 4), step))
    return step, manager


def test_the_newest_of_those_kept_is_restored(tmp_path):
    manager = Manager(tmp_path, keep=2)
    assert manager.latest is None
    for step in (9, 10, 11):
        assert manager.save_now(step, items(step))
    assert manager.latest == 11
    assert steps(tmp_path) == [10, 11]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["10", "11"]
    assert restored(tmp_path)[0] == 11
    assert manager.said == []


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_a_checkpoint_is_restored_onto_another_number_of_devices(tmp_path, devices):
    four = NamedSharding(make_mesh(), PartitionSpec())
    saved = {"state": jax.device_put(state(3), four), "data": {"batch": 3}}
    Manager(tmp_path).save_now(3, saved)
    mesh = make_mesh(jax.devices()[:devices])
    split = targets(NamedSharding(mesh, PartitionSpec()))
    split["state"]["params"]["w"] = jax.ShapeDtypeStruct(
        (8, 4), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("data"))
    )
    _, found = Manager(tmp_path).restore(split)
    w = found["state"]["params"]["w"]
    assert w.sharding.spec == PartitionSpec("data")
    assert len(w.addressable_shards) == devices
    np.testing.assert_array_equal(w, np.full((8, 4), 3.0))


def test_the_best_are_kept_besides_the_newest(tmp_path):
    manager = Manager(tmp_path, keep=1, keep_best=2)
    assert manager.best_score is None
    for step, score in ((1, 5.0), (2, None), (3, 9.0), (4, 8.0), (5, None), (6, 1.0)):
        manager.save(step, items(step), score=score)
    assert manager.best_score == 9.0
    manager.wait()
    assert steps(tmp_path) == [3, 4, 6]
    again = Manager(tmp_path, keep=1, keep_best=1)
    assert again.best_score == 9.0
    assert again.save_now(7, items(7))
    assert steps(tmp_path) == [3, 7]
    (tmp_path / "3" / "manifest.json").write_text("{")
    assert Manager(tmp_path).best_score is None
    assert restored(tmp_path)[0] == 7


def test_a_save_that_fails_is_not_the_best(tmp_path, monkeypatch):
    manager = Manager(tmp_path, keep=1, keep_best=1)
    manager.save_now(1, items(1), score=1.0)
    with monkeypatch.context() as patch:

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(weights_items, "write_manifest", full)
        manager.save(2, items(2), score=2.0)
        assert manager.best_score == 2.0  # as far as is known
        assert not manager.wait()
    assert "checkpoint 2 could not be saved" in manager.said[0]
    assert manager.best_score == 1.0
    assert steps(tmp_path) == [1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1"]


def test_the_end_of_a_block_waits_for_the_last_save(tmp_path):
    with Manager(tmp_path) as manager:
        manager.save(1, items(1))
    assert manager._saving is None
    assert steps(tmp_path) == [1]
    broken = Manager(tmp_path)

    def fail(error):
        with broken:
            broken.save(broken.latest + 1, items(2))
            raise error

    with pytest.raises(ValueError, match="of the run"):
        fail(ValueError("of the run"))
    assert steps(tmp_path) == [1, 2]


def test_a_step_is_saved_once(tmp_path, monkeypatch):
    manager = Manager(tmp_path)
    manager.save_now(3, items(3))
    monkeypatch.setattr(checkpoints, "save_items_async", None)
    assert manager.save_now(3, items(3))


def test_a_half_written_checkpoint_is_ignored_and_said(tmp_path):
    Manager(tmp_path).save_now(3, items(3))
    (tmp_path / "5.saving.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    (tmp_path / "4.saving").mkdir()
    step, manager = restored(tmp_path)
    assert step == 3
    assert len(manager.said) == 2
    assert "half-written" in manager.said[0]
    assert len(list(tmp_path.iterdir())) == 3  # nothing is deleted by restoring
    manager.save_now(6, items(6))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["3", "6"]


def test_a_damaged_checkpoint_is_passed_over_and_kept(tmp_path):
    manager = Manager(tmp_path, keep=2)
    for step in (2, 4):
        manager.save_now(step, items(step))
    cut_largest_file(tmp_path / "4")
    step, manager = restored(tmp_path, keep=1)
    assert step == 2
    assert manager.latest == 2
    assert "checkpoint 4 cannot be read" in manager.said[0]
    assert "bytes" in manager.said[0]
    assert steps(tmp_path) == [2, 4]

    # It counts neither as kept nor as the newest, until its step is saved again.
    assert manager.save_now(3, items(3))
    assert steps(tmp_path) == [3, 4]
    assert restored(tmp_path)[0] == 3
    assert manager.save_now(4, items(4))
    assert steps(tmp_path) == [4]
    assert restored(tmp_path)[0] == 4


def test_nothing_to_read_is_a_refusal(tmp_path):
    with pytest.raises(PreflightError, match="there is none"):
        Manager(tmp_path / "none").restore(targets())
    Manager(tmp_path).save_now(1, items(1))
    cut_largest_file(tmp_path / "1")
    with pytest.raises(
        PreflightError, match=r"no checkpoint .* can be read \(1: .*bytes"
    ):
        Manager(tmp_path).restore(targets())
    assert steps(tmp_path) == [1]


def test_another_model_is_not_restored_into_this_one(tmp_path):
    save_items(tmp_path / "1", {"state": {"w": jnp.zeros(3)}, "data": {}})
    with pytest.raises(
        PreflightError, match=r"state\['params'\]\['w'\] is nothing there"
    ):
        Manager(tmp_path).restore(targets())


def test_a_full_disk_is_said_and_the_old_checkpoint_stays(tmp_path, monkeypatch):
    manager = Manager(tmp_path)
    manager.save_now(1, items(1))
    with monkeypatch.context() as patch:

        def full(*_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(checkpoints, "save_items_async", full)
        assert not manager.save_now(2, items(2))
    (said,) = manager.said
    assert "checkpoint 2 could not be saved" in said
    assert "No space left on device" in said
    assert "(it is 1)" in said
    assert restored(tmp_path)[0] == 1
    assert manager.save_now(3, items(3))
    assert restored(tmp_path)[0] == 3


def test_a_first_save_that_fails_is_said_too(tmp_path):
    (tmp_path / "file").write_text("")
    manager = Manager(tmp_path / "file")
    assert not manager.save_now(2, items(2))
    assert "(there is none yet)" in manager.said[0]
