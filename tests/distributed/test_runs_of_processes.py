"""Whole runs of `train.py` in real processes, some of which are stopped or killed.

Those that are not slow have a network of one number, that of `fake_trainer`, which
needs no time to compile.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]

sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests" / "training")]

import preemption  # noqa: E402
from fake_trainer import FakeTrainer  # noqa: E402
from launch import (  # noqa: E402
    Processes,
    arguments,
    last_step,
    photographs,
    wait_for_step,
)

from configs import CONFIGS  # noqa: E402
from deepprism_jax.training import cli, program  # noqa: E402
from deepprism_jax.weights.items import steps  # noqa: E402

ONE_NUMBER = """
sys.path.insert(0, "tests/training")
from fake_trainer import FakeTrainer
from deepprism_jax.training import program
program.make_trainer = FakeTrainer
program.run_lines = lambda *_: []
"""

HANGS = """
import os, time
from deepprism_jax.data.pipeline import TrainBatches
read = TrainBatches.__next__
def hang(batches):
    if batches.get_state()["batch"] == 5 and os.environ["JAX_PROCESS_ID"] == "1":
        time.sleep(600)
    return read(batches)
TrainBatches.__next__ = hang
"""

LONG = "1000000"
"""More steps than any of these runs takes."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photographs(tmp_path_factory.mktemp("data") / "photographs")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Programs compiled by one run are there for the next one."""
    return tmp_path_factory.mktemp("cache")


def test_a_run_that_one_process_is_told_to_stop_goes_on_as_if_it_had_not(
    folder, cache, tmp_path, monkeypatch
):
    """All stop after the same step; then two processes go on, and so would one."""
    workdir = tmp_path / "run"

    def argv(count, *more):
        # A logged value is a mean since the last one, which a stop would cut in two.
        each = {"train__log_every": "1", "train__eval_every": "7"}
        small = arguments(folder, train__steps=str(count), **each)
        return [*small, "--workdir", workdir, *more]

    with Processes(argv(LONG), 2, cache=cache, before=ONE_NUMBER) as run:
        wait_for_step(run, workdir, 4)
        run.send(1, "SIGTERM")
        codes, outputs, errors = run.ends()
    assert codes == [143, 143], errors
    assert errors == ["", ""]
    step = steps(workdir / "checkpoints")[-1]
    assert f"stopped by SIGTERM after step {step}; --resume goes on" in outputs[0]
    assert "stopped" not in outputs[1]  # process 0 speaks for all

    last = step + 3
    with Processes(argv(last, "--resume"), 2, cache=cache, before=ONE_NUMBER) as run:
        codes, outputs, errors = run.ends()
    assert codes == [0, 0], errors
    assert f"going on from step {step}" in outputs[0]

    monkeypatch.setattr(program, "make_trainer", FakeTrainer)
    monkeypatch.setattr(program, "run_lines", lambda *_: [])
    whole = cli.parse([str(x) for x in argv(last)], CONFIGS).config
    assert program.train(whole, tmp_path / "whole") == 0
    for key in ("kl", "eval/psnr"):
        there, here = (records(w, key) for w in (workdir, tmp_path / "whole"))
        # Counted in float32, over parts of the batch that are added in another order.
        assert there == pytest.approx({s: here[s] for s in there}, rel=1e-5)


@pytest.mark.slow
def test_a_process_that_is_lost_ends_the_others_in_a_line(folder, cache, tmp_path):
    workdir = tmp_path / "run"
    argv = [*arguments(folder, train__steps=LONG), "--workdir", workdir]
    with Processes(argv, 2, cache=cache, before=ONE_NUMBER) as run:
        wait_for_step(run, workdir, 6)
        while not steps(workdir / "checkpoints"):  # being saved in the background
            time.sleep(0.05)
        killed = time.monotonic()
        run.send(1, "SIGKILL")
        codes, _, errors = run.ends(60)
        took = time.monotonic() - killed
    assert codes == [1, -9]
    assert errors[0].startswith("lost process 1 (")
    assert errors[0].count("\n") == 1
    assert took < 30


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_stopped_and_resumed_is_uninterrupted_bit_for_bit(
    folder, cache, tmp_path, count
):
    argv = arguments(folder, train__steps="40", train__log_every="1")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with Processes([*argv, "--workdir", whole], count, cache=cache) as run:
        codes, _, errors = run.ends(600)
    assert codes == [0] * count, errors
    with Processes([*argv, "--workdir", parts], count, cache=cache) as run:
        wait_for_step(run, parts, 5, timeout=600)
        run.send(count - 1, "SIGINT")
        codes, _, errors = run.ends()
    assert codes == [130] * count, errors
    assert 5 <= steps(parts / "checkpoints")[-1] < 40
    argv_on = [*argv, "--workdir", parts, "--resume"]
    with Processes(argv_on, count, cache=cache) as run:
        codes, _, errors = run.ends(600)
    assert codes == [0] * count, errors
    assert preemption.last_saved(argv, parts) == preemption.last_saved(argv, whole)
    curves = [records(workdir, "reconstruction") for workdir in (parts, whole)]
    assert curves[0] == curves[1]


@pytest.mark.slow
def test_the_number_of_processes_does_not_change_the_loss(folder, cache, tmp_path):
    """By SGD: Adam makes whole steps of the rounding errors of a bias before a norm."""
    argv = arguments(folder, train__steps="20", train__log_every="1")
    argv += ["--optimizer.name", "sgd", "--optimizer.learning-rate", "0.1"]
    curves = {}
    for count in (1, 2, 4):
        workdir = tmp_path / str(count)
        with Processes([*argv, "--workdir", workdir], count, cache=cache) as run:
            codes, _, errors = run.ends(600)
        assert codes == [0] * count, errors
        curves[count] = list(records(workdir, "reconstruction").values())
    assert len(curves[1]) == 20
    for count in (2, 4):
        np.testing.assert_allclose(curves[count], curves[1], rtol=1e-5)


@pytest.mark.slow
def test_killed_again_and_again_it_is_the_same_run(capsys):
    options = preemption.Options(processes=4, kills=4, seed=1, steps=120)
    figures = preemption.main(options)
    assert figures["identical_arrays"] > 100


@pytest.mark.slow
def test_what_one_process_refuses_all_refuse(folder, cache, tmp_path):
    argv = arguments(folder, train__batch_size="12")
    argv += ["--workdir", tmp_path / "run"]

    def own(number):
        return argv if number != 2 else [*argv, "--data.path", "/no/where"]

    with Processes(own, 3, cache=cache) as run:
        codes, _, errors = run.ends()
    assert codes == [2, 2, 2]
    assert len(set(errors)) == 1
    assert errors[0].startswith("error: process 2 (")
    assert "/no/where" in errors[0]
    assert errors[0].count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_process_that_hangs_is_named_with_what_it_was_at(folder, cache, tmp_path):
    argv = arguments(folder, train__step_timeout="3", train__log_every="1")
    argv += ["--workdir", tmp_path / "run"]
    with Processes(argv, 2, cache=cache, before=ONE_NUMBER + HANGS) as run:
        codes, _, errors = run.ends()
    assert codes == [1, 1]
    assert "process 1" in errors[0]
    assert "the batch of step 6" in errors[0]
    assert "train.step_timeout=3 s" in errors[0]


@pytest.mark.slow
def test_a_process_that_stands_still_counts_as_lost(folder, cache, tmp_path):
    workdir = tmp_path / "run"
    argv = [*arguments(folder, train__steps=LONG), "--workdir", workdir]
    impatient = "from deepprism_jax.training import watchdog; watchdog.LOST_AFTER = 4"
    before = ONE_NUMBER + impatient
    with Processes(argv, 2, cache=cache, before=before) as run:
        wait_for_step(run, workdir, 4)
        run.send(1, "SIGSTOP")
        assert run.processes[0].wait(40) == 1
        assert run.processes[0].stderr.read().startswith("lost process 1 (")


@pytest.mark.slow
def test_a_second_interrupt_ends_a_step_that_never_ends(folder, cache, tmp_path):
    workdir = tmp_path / "run"
    argv = [*arguments(folder, train__log_every="1"), "--workdir", workdir]
    with Processes(argv, 2, cache=cache, before=ONE_NUMBER + HANGS) as run:
        wait_for_step(run, workdir, 5)
        time.sleep(1)  # the other one now hangs, and this one waits for it
        began = time.monotonic()
        run.send(0, "SIGINT")
        time.sleep(0.5)
        run.send(0, "SIGINT")
        codes, _, errors = run.ends(60)
        took = time.monotonic() - began
    assert codes == [130, 1], errors
    assert "process 0" in errors[1]
    assert "was interrupted" in errors[1]
    assert took < 30


def records(workdir, key):
    """The values of a metric, by step."""
    assert last_step(workdir) > 0
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line[key] for line in lines if key in line}
