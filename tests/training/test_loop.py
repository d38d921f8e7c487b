"""The whole program around a step that is quick to compile, instead of the real one."""

import dataclasses
import errno
import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest
from fake_trainer import FakeTrainer, Gain
from PIL import Image

from deepprism_jax.training import checkpoints, loop, program
from deepprism_jax.training.autoencoder.evaluator import Evaluator
from deepprism_jax.training.config import Config, DataConfig, TrainConfig
from deepprism_jax.training.preflight import PreflightError
from deepprism_jax.weights.items import load_items, steps

SIZE = 16


class Interrupting:
    """Training batches that send a signal to this process as one is asked for."""

    def __init__(self, batches, at, number):
        self.batches, self.at, self.number, self.asked = batches, at, number, 0

    def __getattr__(self, name):
        return getattr(self.batches, name)

    def __next__(self):
        self.asked += 1
        if self.asked == self.at:
            os.kill(os.getpid(), self.number)
        return next(self.batches)


def use(patch, trainer):
    patch.setattr(program, "make_trainer", trainer)
    patch.setattr(program, "run_lines", lambda config, data: ["a fake run"])


@pytest.fixture(autouse=True)
def trainer(monkeypatch):
    """The class that makes the run's trainer; set its attributes to break it."""

    class Breakable(FakeTrainer):
        pass

    use(monkeypatch, Breakable)
    return Breakable


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 9)):
        (folder / split).mkdir()
        for number in range(count):
            pixels = random.integers(0, 255, (SIZE, SIZE, 3), np.uint8)
            Image.fromarray(pixels).save(folder / split / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def config(photographs):
    return Config(
        data=DataConfig(
            source="folder", path=str(photographs), image_size=(SIZE, SIZE)
        ),
        train=TrainConfig(
            steps=12, batch_size=4, log_every=3, eval_every=5, save_every=4, keep=2
        ),
    )


def with_train(config, **changes):
    return dataclasses.replace(
        config, train=dataclasses.replace(config.train, **changes)
    )


def interrupt(monkeypatch, at, number=signal.SIGTERM):
    """Send the signal while the batch of step `at` is read; return how to undo it."""
    opened = program.open_data

    def open_data(config):
        data = opened(config)
        return data._replace(train=Interrupting(data.train, at, number))

    monkeypatch.setattr(program, "open_data", open_data)


def records(workdir, key=None):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    if key is None:
        return found
    return {r["step"]: r[key] for r in found if key in r}


def said(workdir):
    return "\n".join(record.get("text", "") for record in records(workdir))


def final(workdir, step=12):
    """All that the checkpoint of a step holds, as bytes by name."""
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        FakeTrainer(Config()).init(),
    )
    items = load_items(
        workdir / "checkpoints" / str(step),
        {"state": target, "ema": target.ema, "data": None},
    )
    leaves = jax.tree_util.tree_flatten_with_path(items)[0]
    return {jax.tree_util.keystr(path): np.asarray(x).tobytes() for path, x in leaves}


@pytest.fixture(scope="module")
def uninterrupted(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        use(patch, FakeTrainer)
        assert program.train(config, workdir) == 0
    return workdir


@pytest.fixture
def whole(uninterrupted, tmp_path):
    """A copy of the run that nothing interrupts."""
    return shutil.copytree(uninterrupted, tmp_path / "whole")


def test_a_run_logs_evaluates_saves_and_exports_when_due(whole):
    assert list(records(whole, "kl")) == [3, 6, 9, 12]
    assert list(records(whole, "eval/psnr")) == [0, 5, 10, 12]
    for name in ("images_per_second", "step_seconds"):
        assert all(value > 0 for value in records(whole, name).values())
    assert all(0 <= share <= 1 for share in records(whole, "data_wait").values())
    assert not records(whole, "flops_utilization")  # not known of CPUs
    assert steps(whole / "checkpoints") == [8, 12]
    pictures = sorted(p.name for p in (whole / "reconstructions").iterdir())
    assert pictures == [f"{step:08d}.png" for step in (0, 5, 10, 12)]
    assert any((whole / "tensorboard").iterdir())
    exported = Gain.from_pretrained(whole / "model")
    average = np.frombuffer(final(whole)["['ema']['gain']"], np.float32)
    assert exported.gain[...] == average[0] != 0
    assert Gain.from_pretrained(whole).gain[...] == average[0]
    assert "done after step 12" in said(whole)


def test_means_cover_every_step_once(config, tmp_path, whole):
    assert program.train(with_train(config, log_every=1), tmp_path / "each") == 0
    each, means = records(tmp_path / "each", "kl"), records(whole, "kl")
    for step, mean in means.items():
        window = [each[s] for s in range(step - 2, step + 1)]
        assert mean == pytest.approx(np.mean(window), rel=1e-6)


@pytest.mark.parametrize(
    ("at", "number", "code"), [(1, signal.SIGTERM, 143), (7, signal.SIGINT, 130)]
)
def test_an_interrupted_run_that_is_resumed_is_the_same_run(
    config, tmp_path, monkeypatch, whole, number, code, at
):
    workdir = tmp_path / "interrupted"
    with monkeypatch.context() as patch:
        interrupt(patch, at, number)
        assert program.train(config, workdir) == code
    assert steps(workdir / "checkpoints")[-1] == at  # the step was finished
    assert f"stopped by {number.name} after step {at}" in said(workdir)
    assert not (workdir / "model").exists()

    assert program.train(config, workdir, resume=True) == 0
    assert f"going on from step {at}" in said(workdir)
    assert final(workdir) == final(whole)
    assert records(workdir, "eval/psnr") == records(whole, "eval/psnr")
    assert records(workdir, "kl")[12] == records(whole, "kl")[12]
    exported = Gain.from_pretrained(workdir / "model").gain[...]
    assert exported == Gain.from_pretrained(whole / "model").gain[...]


def test_a_second_interrupt_aborts(config, tmp_path, monkeypatch):
    interrupt(monkeypatch, 6, signal.SIGINT)

    save_items_async = checkpoints.save_items_async

    def again(path, items, **more):
        if path.name == "6":
            os.kill(os.getpid(), signal.SIGINT)
        return save_items_async(path, items, **more)

    monkeypatch.setattr(checkpoints, "save_items_async", again)
    with pytest.raises(KeyboardInterrupt):
        program.train(config, tmp_path)
    assert steps(tmp_path / "checkpoints") == [4]


def test_an_evaluation_gives_way_to_a_signal(config, tmp_path, monkeypatch):
    interrupt(monkeypatch, 5)
    assert program.train(config, tmp_path) == 143
    assert "evaluation at step 5 was interrupted" in said(tmp_path)
    assert list(records(tmp_path, "eval/psnr")) == [0]


def test_a_loss_that_is_not_finite_ends_the_run(config, tmp_path, trainer):
    trainer.bad_loss_at = 8
    assert program.train(config, tmp_path) == 1
    text = said(tmp_path)
    assert "kl is not finite, first at step 8 (checked were the steps [7, 8])" in text
    assert "newest checkpoint stays (it is of step 4)" in text
    assert steps(tmp_path / "checkpoints") == [4]  # step 8 was due, and not saved
    assert not (tmp_path / "model").exists()


def test_a_state_that_is_not_finite_is_never_saved(config, tmp_path, trainer):
    trainer.bad_state_at = 4  # the loss of step 4 is still finite
    assert program.train(config, tmp_path) == 1
    assert "params.autoencoder.gain and 1 more arrays are not finite" in said(tmp_path)
    assert "there is none" in said(tmp_path)
    assert steps(tmp_path / "checkpoints") == []


def fail_to_save(monkeypatch, *failing):
    save_items_async = checkpoints.save_items_async

    def save(path, items, **more):
        if int(path.name) in failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save_items_async(path, items, **more)

    monkeypatch.setattr(checkpoints, "save_items_async", save)


def test_a_full_disk_at_a_save_does_not_end_the_run(
    config, tmp_path, monkeypatch, whole
):
    fail_to_save(monkeypatch, 8)
    assert program.train(config, tmp_path / "full") == 0
    assert "checkpoint 8 could not be saved" in said(tmp_path / "full")
    assert "No space left on device" in said(tmp_path / "full")
    assert steps(tmp_path / "full" / "checkpoints") == [4, 12]
    assert final(tmp_path / "full") == final(whole)


def test_a_full_disk_at_the_end_is_a_failure_and_the_old_checkpoint_stays(
    config, tmp_path, monkeypatch, whole
):
    workdir = tmp_path / "full"
    with monkeypatch.context() as patch:
        fail_to_save(patch, 8, 12)
        assert program.train(config, workdir) == 1
    assert steps(workdir / "checkpoints") == [4]
    assert program.train(config, workdir, resume=True) == 0
    assert final(workdir) == final(whole)


def test_an_export_that_fails_is_a_failure(config, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_pretrained", full)
        assert program.train(config, tmp_path) == 1
    assert "the model could not be exported" in said(tmp_path)
    assert program.train(config, tmp_path, resume=True) == 0
    assert (tmp_path / "model" / "config.json").is_file()


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(config, whole):
    expected = final(whole)
    (whole / "checkpoints" / "12" / "manifest.json").write_text("{")
    (whole / "checkpoints" / "16.saving.orbax-checkpoint-tmp").mkdir()
    assert program.train(config, whole, resume=True) == 0
    text = said(whole)
    assert "checkpoint 12 cannot be read: manifest.json is missing" in text
    assert "16.saving.orbax-checkpoint-tmp is a half-written checkpoint" in text
    assert "going on from step 8" in text
    assert final(whole) == expected


def test_the_best_is_saved_when_it_is_found_and_kept(config, tmp_path, monkeypatch):
    psnr = {0: 9.9, 5: 9.0, 10: 7.0, 12: 8.0}
    evaluated = iter(psnr.values())
    monkeypatch.setattr(
        Evaluator, "scores", lambda *_: {"psnr": next(evaluated), "ssim": 0.5}
    )
    best = with_train(config, keep=1, keep_best=1)
    assert program.train(best, tmp_path) == 0
    assert steps(tmp_path / "checkpoints") == [5, 12]
    average = np.frombuffer(final(tmp_path, 5)["['ema']['gain']"], np.float32)
    for found in ("best", "5"):
        model = Gain.from_pretrained(tmp_path / "checkpoints" / found)
        assert model.gain[...] == average
    assert Gain.from_pretrained(tmp_path).gain[...] != average


def test_a_run_in_a_bucket_is_the_same_run(config, bucket, whole, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, 7)
        assert program.train(config, "gs://bucket/run") == 143
    assert program.train(config, "gs://bucket/run", resume=True) == 0
    run = bucket / "run"
    assert final(run) == final(whole)
    assert "going on from step 7" in said(run)
    assert records(run, "eval/psnr") == records(whole, "eval/psnr")
    assert steps("gs://bucket/run/checkpoints") == [8, 12]
    names = {"checkpoints", "config.json", "metrics.jsonl", "model", "tensorboard"}
    assert names | {"reconstructions"} <= {p.name for p in run.iterdir()}
    exported = Gain.from_pretrained("gs://bucket/run/model").gain[...]
    assert exported == Gain.from_pretrained(whole / "model").gain[...]
    assert exported == Gain.from_pretrained("gs://bucket/run").gain[...]
    with pytest.raises(PreflightError, match="add --resume"):
        program.train(config, "gs://bucket/run")


def test_a_longer_run_goes_on(config, tmp_path, whole):
    assert program.train(with_train(config, steps=15), whole, resume=True) == 0
    assert "train.steps was 12 and is 15 from now on" in said(whole)
    assert program.train(with_train(config, steps=15), tmp_path / "at once") == 0
    assert final(whole, 15) == final(tmp_path / "at once", 15)


def test_a_finished_run_has_nothing_left_to_do(config, whole):
    before = final(whole)
    assert program.train(config, whole, resume=True) == 0
    assert final(whole) == before
    assert list(records(whole, "eval/psnr")) == [0, 5, 10, 12]


def test_refusals_come_before_any_work(config, tmp_path, whole, trainer):
    trainer.__init__ = None  # not even the networks are made
    with pytest.raises(PreflightError, match="add --resume"):
        program.train(config, whole)
    with pytest.raises(PreflightError, match="in use by another config"):
        program.train(with_train(config, seed=1), whole, resume=True)
    with pytest.raises(PreflightError, match="has no run in it"):
        program.train(config, tmp_path / "none", resume=True)


@pytest.mark.parametrize("break_it", ["missing", "empty", "not an image"])
def test_data_that_cannot_be_read_are_refused(config, tmp_path, break_it):
    folder = tmp_path / "data"
    if break_it != "missing":
        for split in ("train", "test"):
            (folder / split).mkdir(parents=True)
    if break_it == "not an image":
        (folder / "train" / "a.png").write_bytes(b"nothing")
    data = dataclasses.replace(config.data, path=str(folder))
    with pytest.raises(PreflightError) as caught:
        program.train(dataclasses.replace(config, data=data), tmp_path / "run")
    assert str(folder) in caught.value.problems[0]
    assert "\n" not in caught.value.problems[0]
    assert not (tmp_path / "run").exists()
