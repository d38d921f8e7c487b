"""`train.py` as it is called: what it refuses, and whole runs of the real model."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from deepprism_jax.analysis import count_layers
from deepprism_jax.models import AutoencoderKL
from deepprism_jax.training import program
from deepprism_jax.training.systems import CONFIGS as SYSTEMS
from deepprism_jax.training.systems import check, system_of
from deepprism_jax.weights.items import load_items, steps

ROOT = Path(__file__).parents[1]

sys.path.insert(0, str(ROOT))  # `configs` and `train` lie beside the package

import train  # noqa: E402
from configs import CONFIGS  # noqa: E402


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of smooth images in color, ten to train on and five to evaluate on."""
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 5)):
        (folder / split).mkdir()
        for number in range(count):
            small = random.integers(0, 255, (3, 3, 3), np.uint8)
            image = Image.fromarray(small).resize((20, 18), Image.Resampling.BICUBIC)
            image.save(folder / split / f"{number}.png")
    return folder


def options(photographs, **overrides):
    """Arguments that make any experiment small."""
    small = {
        "data.source": "folder",
        "data.path": str(photographs),
        "data.image-size": ("16", "16"),
        "model.width": "32",
        "model.blocks": "1",
        "model.downsamples": "1",
        "optimizer.warmup-steps": "0",
        "train.steps": "6",
        "train.batch-size": "8",
        "train.log-every": "2",
        "train.eval-every": "0",
        "train.save-every": "4",
        **{
            name.replace("__", ".").replace("_", "-"): v
            for name, v in overrides.items()
        },
    }
    argv = []
    for name, value in small.items():
        argv += [f"--{name}", *([value] if isinstance(value, str) else value)]
    return argv


@pytest.mark.parametrize("name", CONFIGS)
def test_every_experiment_has_a_note_and_a_config_that_fits(name):
    module = CONFIGS[name]
    assert module.__doc__
    config = module.get_config()
    assert type(config) in SYSTEMS.values()
    check(config, devices=1)


@pytest.fixture
def refused(capsys, tmp_path):
    """Run `train.py` and return its one line of error."""

    def run(*argv):
        workdir = tmp_path / "run"
        if argv and not argv[0].startswith("-"):
            argv = (*argv, "--workdir", str(workdir))
        assert train.main(argv) == 2
        assert not workdir.exists()
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err.removeprefix("error: ")

    return run


ADVERSARIAL = ("--loss.adversarial-weight", "1", "--discriminator.width", "16")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "no CONFIG is named"),
        (["quickstrat"], "perhaps you meant quickstart"),
        (["quickstart", "--model.widht", "3"], "perhaps you meant --model.width"),
        (["quickstart", "--model.width", "wide"], "'wide'"),
        (["quickstart", "--model.norm-groups", "7"], "must divide model.width=64"),
        (["quickstart", "--data.image-size", "30", "32"], "nearest is (32, 32)"),
        (["quickstart", "--train.batch-size", "6"], "divisible by 4 devices"),
        (
            ["quickstart", "--model.conv", "group", "--model.groups", "7"],
            "--model.groups=7",
        ),
        (["quickstart", "--model.fields", "5"], "--model.fields=5 must divide"),
        (
            ["quickstart", *ADVERSARIAL, "--discriminator.conv", "group"],
            "--discriminator.groups=32 must divide C_in=16",
        ),
        (
            ["quickstart", *ADVERSARIAL, "--data.image-size", "4", "4"],
            "use --discriminator.layers=1 or larger images",
        ),
        (["quickstart", "--loss.perceptual-weight", "1"], "loss.perceptual_weights"),
        (["quickstart", "--data.source", "folder", "--data.path", "/no/x"], "/no/x"),
        (["quickstart", "--data.source", "cifar10", "--data.path", "/no/x"], "/no/x"),
        (["quickstart", "--resume"], "has no run in it"),
    ],
)
def test_mistakes_are_refused_in_one_line_before_any_work(refused, argv, says):
    assert says in refused(*argv)


def test_a_truncated_cifar_file_is_refused(refused, tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name in [f"data_batch_{n}.bin" for n in range(1, 6)] + ["test_batch.bin"]:
        (folder / name).write_bytes(bytes(3073 * 10_000 - 5))
    line = refused("quickstart", "--data.source", "cifar10", "--data.path", str(folder))
    assert "data_batch_1.bin" in line


def test_a_file_of_something_else_as_perceptual_weights_is_refused(refused, tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"nothing")
    arguments = ("--loss.perceptual-weights", str(tmp_path / "weights.npz"))
    line = refused("quickstart", "--loss.perceptual-weight", "1", *arguments)
    assert "weights.npz" in line


def test_an_interrupt_before_the_run_has_begun_ends_quietly(monkeypatch, capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "main", interrupt)
    assert train.main(["quickstart"]) == 130
    assert "nothing was saved" in capsys.readouterr().err


def leaves(workdir, trainer, step):
    """All values that a checkpoint holds, as bytes by name."""
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=trainer.state_sharding
        ),
        trainer.state_shapes,
    )
    items = load_items(
        workdir / "checkpoints" / str(step), {"state": target, "data": None}
    )
    found = jax.tree_util.tree_flatten_with_path(items)[0]
    return {jax.tree_util.keystr(path): np.asarray(x).tobytes() for path, x in found}


class StoppingBatches:
    """Training batches; as number `at` is asked for the process is told to stop."""

    def __init__(self, batches, at):
        self.batches, self.left = batches, at

    def __getattr__(self, name):
        return getattr(self.batches, name)

    def __next__(self):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return next(self.batches)


@pytest.mark.slow
@pytest.mark.parametrize("latent", ["kl", "vq"])
def test_interrupted_and_resumed_is_uninterrupted(
    photographs, tmp_path, monkeypatch, latent
):
    """Every array of the state: both networks, averages, optimizers, codebook, data."""
    argv = [
        "quickstart",
        *options(photographs, model__latent=latent, train__accumulation="2"),
        *("--loss.adversarial-weight", "0.5", "--loss.adversarial-start", "2"),
        *("--loss.adversarial-ramp", "2", "--loss.discriminator-warmup", "1"),
        *("--loss.lecam-weight", "0.01", "--discriminator.width", "8"),
    ]
    # One trainer for all runs: its step is compiled once.
    trainers = []
    make_trainer = program.make_trainer

    def make_once(config):
        trainers.append(trainers[0] if trainers else make_trainer(config))
        return trainers[0]

    monkeypatch.setattr(program, "make_trainer", make_once)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train.main([*argv, "--workdir", str(whole)]) == 0
    with monkeypatch.context() as patch:
        open_data = program.open_data

        def stopping(config):
            data = open_data(config)
            return data._replace(train=StoppingBatches(data.train, 3))

        patch.setattr(program, "open_data", stopping)
        assert train.main([*argv, "--workdir", str(parts)]) == 143
    assert steps(parts / "checkpoints") == [3]
    assert train.main([*argv, "--workdir", str(parts), "--resume"]) == 0
    expected, found = (leaves(run, trainers[0], 6) for run in (whole, parts))
    assert found == expected
    assert any("discriminator" in name for name in found)
    assert any("ema" in name for name in found)
    export = "model/model.safetensors"
    assert (parts / export).read_bytes() == (whole / export).read_bytes()


def test_the_state_has_what_the_slow_test_compares():
    config = CONFIGS["quickstart"].get_config()
    loss = dataclasses.replace(config.loss, adversarial_weight=0.5)
    trainer = program.make_trainer(dataclasses.replace(config, loss=loss))
    state = trainer.state_shapes
    assert {"autoencoder", "discriminator"} <= set(state.params)
    assert state.ema


def start(workdir, *argv, **variables):
    environment = {
        **os.environ,
        **variables,
        "JAX_PLATFORMS": "cpu",
        # The second process need not compile what the first has.
        "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [sys.executable, "train.py", *argv, "--workdir", str(workdir)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def last_step(workdir):
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return 0
    lines = path.read_text().splitlines()
    return max((json.loads(line)["step"] for line in lines), default=0)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_process_that_is_told_to_stop_saves_and_can_go_on(
    photographs, tmp_path, number, code
):
    workdir = tmp_path / "run"
    argv = ["quickstart", *options(photographs, train__steps="1000000")]
    process = start(workdir, *argv)
    while last_step(workdir) < 4 and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(getattr(signal, number))
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert err == ""
    step = steps(workdir / "checkpoints")[-1]
    assert f"stopped by {number} after step {step}; --resume goes on" in out

    process = start(workdir, *argv, "--resume", "--train.steps", str(step + 2))
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert f"going on from step {step}" in out
    assert f"train.steps was 1000000 and is {step + 2}" in out
    assert AutoencoderKL.from_pretrained(workdir).options["width"] == 32


def free_port():
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


@pytest.mark.slow
def test_two_processes_are_one_run(photographs, tmp_path):
    """They share the batch, process 0 alone writes, and the model is that of one.

    Of the three images to evaluate on process 0 has all. Trained by SGD: a bias before
    a norm has rounding errors for a gradient, of which Adam makes whole steps.
    """
    argv = ["quickstart", *options(photographs, train__eval_images="3")]
    argv += ["--optimizer.name", "sgd", "--optimizer.learning-rate", "0.1"]
    alone = start(tmp_path / "one", *argv, JAX_NUM_CPU_DEVICES="2")
    _, err = alone.communicate(timeout=600)
    assert alone.returncode == 0, err
    address = f"localhost:{free_port()}"
    processes = [
        start(
            tmp_path / "two",
            *argv,
            "--distributed",
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(number),
        )
        for number in range(2)
    ]
    outputs = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "devices: 2 x cpu (cpu) in 2 processes" in outputs[0][0]
    assert "devices:" not in outputs[1][0]
    one, two = (
        load_file(tmp_path / name / "model" / "model.safetensors")
        for name in ("one", "two")
    )
    assert len(list((tmp_path / "two" / "reconstructions").iterdir())) == 2
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_a_dry_run_tells_all_and_does_nothing(photographs, tmp_path, capsys):
    arguments = options(photographs, optimizer__learning_rate="1e-6")
    argv = ["quickstart", *arguments, "--optimizer.scale-by-batch"]
    workdir = tmp_path / "run"
    assert train.main([*argv, "--workdir", str(workdir), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "learning rate: 8e-06 (base 1e-06 x batch 8)" in out
    assert "batch: 8 images = 4 devices x 1 accumulation step x 2 images" in out
    assert "10 images to train on and 5 to evaluate on, at 16x16" in out
    assert "compiled for cpu" in out
    assert not workdir.exists()


def test_a_dry_run_says_a_problem_once(tmp_path, capsys):
    (tmp_path / "no.png").write_text("no image")
    argv = ["sinddm_deepprism", "--data.path", str(tmp_path / "no.png")]
    assert train.main([*argv, "--train.batch-size", "4", "--dry-run"]) == 2
    assert capsys.readouterr().err.count("no.png: not an image") == 1


def test_a_dry_run_prints_the_table_where_data_and_weights_are_missing(capsys):
    config = CONFIGS["imagenet256_deepprism"].get_config()
    counts = count_layers(system_of(config).networks(config))
    encoder = sum(count.parameters for count in counts if count.network == "encoder")
    assert train.main(["imagenet256_deepprism", "--dry-run"]) == 2
    out, err = capsys.readouterr()
    assert f"{encoder:,}" in out
    assert "learning rate: 2e-05" in out
    assert all(line.startswith("error: ") for line in err.splitlines())
    assert len(err.splitlines()) == 2
    assert "loss.perceptual_weights" in err
