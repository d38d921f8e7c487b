import dataclasses
import json
import multiprocessing

import pytest

from deepprism_jax.training.config import Config, TrainConfig
from deepprism_jax.training.preflight import PreflightError
from deepprism_jax.training.workdir import (
    check_workdir,
    claim,
    differences,
    from_dict,
    notes_on_changes,
    read_config,
    to_dict,
)
from deepprism_jax.weights.items import save_items


def changed(group, **fields):
    part = dataclasses.replace(getattr(Config(), group), **fields)
    return dataclasses.replace(Config(), **{group: part})


def refused(workdir, config, *, resume):
    with pytest.raises(PreflightError) as caught:
        check_workdir(workdir, config, resume=resume)
    (problem,) = caught.value.problems
    assert "\n" not in problem
    return problem


@pytest.fixture
def run(tmp_path):
    """A work directory of the default config, with a checkpoint of step 40."""
    with claim(tmp_path / "run", Config(), resume=False):
        (tmp_path / "run" / "checkpoints").mkdir()
        save_items(tmp_path / "run" / "checkpoints" / "40", {"data": {}})
    return tmp_path / "run"


@pytest.mark.parametrize(
    "config",
    [Config(), changed("data", image_size=(64, 48)), changed("train", steps=7)],
)
def test_a_config_is_the_same_after_json(config):
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_a_config_of_before_takes_new_defaults_and_an_unknown_field_is_named():
    values = to_dict(Config())
    del values["model"]["heads"]
    assert from_dict(values) == Config()
    values["model"]["colour"] = 1
    with pytest.raises(ValueError, match=r"unknown field model\.colour"):
        from_dict(values)


def test_differences_are_dotted():
    assert differences(Config(), changed("model", width=64)) == {
        "model.width": (256, 64)
    }


def test_a_fresh_directory_is_made_and_holds_the_config(tmp_path):
    with claim(tmp_path / "a" / "b", changed("model", width=64), resume=False):
        assert read_config(tmp_path / "a" / "b") == changed("model", width=64)


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PreflightError, match="file"):
        with claim(tmp_path / "file" / "run", Config(), resume=False):
            pass


def test_starting_again_before_the_first_checkpoint_is_allowed(tmp_path):
    for _ in range(2):
        with claim(tmp_path, Config(), resume=False):
            pass


def test_a_directory_that_is_just_being_claimed_is_fresh(tmp_path):
    """As another process of the same run may find it."""
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".config.json.123.part").write_text("{")
    check_workdir(tmp_path, Config(), resume=False)
    assert "has no run in it" in refused(tmp_path, Config(), resume=True)


@pytest.mark.parametrize("resume", [True, False])
def test_another_config_is_refused_and_nothing_is_written(run, resume):
    before = (run / "config.json").read_text()
    other = changed("model", width=64, conv="dense")
    problem = refused(run, other, resume=resume)
    assert "in use by another config" in problem
    assert "model.width is 256 there, 64 here" in problem
    assert "model.conv is 'deepprism' there, 'dense' here" in problem
    with pytest.raises(PreflightError), claim(run, other, resume=resume):
        pass
    assert (run / "config.json").read_text() == before


def test_a_checkpoint_is_not_run_over_without_resume(run):
    assert "step 40; add --resume" in refused(run, Config(), resume=False)
    check_workdir(run, Config(), resume=True)


def test_resume_needs_a_checkpoint(tmp_path):
    assert "has no run in it" in refused(tmp_path / "none", Config(), resume=True)
    assert not (tmp_path / "none").exists()
    with claim(tmp_path, Config(), resume=False):
        pass
    assert "has no checkpoint" in refused(tmp_path, Config(), resume=True)


@pytest.mark.parametrize("resume", [True, False])
def test_a_directory_of_something_else_is_refused(tmp_path, resume):
    (tmp_path / "thesis.tex").write_text("")
    assert "not of a run" in refused(tmp_path, Config(), resume=resume)
    assert "is a file" in refused(tmp_path / "thesis.tex", Config(), resume=resume)
    (tmp_path / "config.json").write_text('{"config": {"model"')
    assert "no config of a run" in refused(tmp_path, Config(), resume=resume)


def test_length_and_cadence_may_change_on_resume(run):
    longer = changed("train", steps=20_000, log_every=7, save_every=9, keep=5)
    with claim(run, longer, resume=True):
        assert read_config(run) == longer
    assert "below step 40" in refused(run, changed("train", steps=39), resume=True)
    assert "train.seed is 0" in refused(run, changed("train", seed=1), resume=True)


def test_changes_of_length_say_what_schedules_do():
    there, longer = Config(), TrainConfig(steps=20_000)
    (line,) = notes_on_changes(there, dataclasses.replace(there, train=longer))
    assert line.startswith("train.steps was 10000 and is 20000")
    assert "no schedule depends on it" in line
    scheduled = dataclasses.replace(
        there,
        optimizer=dataclasses.replace(there.optimizer, schedule="cosine"),
        loss=dataclasses.replace(
            there.loss, adversarial_weight=0.5, adversarial_start=500.0
        ),
    )
    (line,) = notes_on_changes(scheduled, dataclasses.replace(scheduled, train=longer))
    assert "the cosine learning rate" in line
    assert "loss.discriminator_warmup" in line
    assert "loss.adversarial_start" not in line


def _try_to_claim(workdir, answer):
    try:
        with claim(workdir, Config(), resume=False):
            answer.put("claimed")
    except PreflightError as error:
        answer.put(str(error))


def test_two_runs_do_not_share_a_directory(tmp_path):
    context = multiprocessing.get_context("spawn")
    answer = context.SimpleQueue()

    def ask():
        other = context.Process(target=_try_to_claim, args=(tmp_path, answer))
        other.start()
        other.join()
        return answer.get()

    with claim(tmp_path, Config(), resume=False):
        assert "being written to by another run" in ask()
    assert ask() == "claimed"
