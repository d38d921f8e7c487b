import json

import pytest

from deepprism_jax.analysis.table3 import abstract_autoencoder
from deepprism_jax.layers.functional import Functional


def subject(training_step, name, size):
    times = {"step": 40.0, "forward": 10.0, "update": 2.0}
    return training_step.Subject(
        name=name,
        batch_size=8,
        parameters=7,
        bytes=size,
        runs={part: lambda: None for part in times},
        milliseconds=times,
    )


def test_a_line_holds_rates_and_shares(benchmark_module):
    training_step = benchmark_module("training_step")
    line = training_step.row(subject(training_step, "JAX dense", 3 * 2**20))
    assert line == (
        *("JAX dense, batch 8", "7", "3", "200.0", "40", "10"),
        *("4.00", "5.0%"),
    )
    assert training_step.row(subject(training_step, "torch", None))[2] == ""


def test_the_figures_are_written(benchmark_module, tmp_path, monkeypatch):
    training_step = benchmark_module("training_step")
    made = [subject(training_step, name, 100) for name in ("one", "two")]
    monkeypatch.setattr(training_step, "subjects", lambda options: made)
    path = tmp_path / "figures.json"
    training_step.main(training_step.Options(seconds=0.0, bursts=1, json=str(path)))
    rows = json.loads(path.read_text())["rows"]
    assert [row["name"] for row in rows] == ["one", "two"]
    assert all(0 <= row["milliseconds"]["step"] < 40.0 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["deepprism", "dense"])
def test_a_small_network_is_measured(benchmark_module, tmp_path, kind):
    training_step = benchmark_module("training_step")
    path = tmp_path / "figures.json"
    training_step.main(
        training_step.Options(
            widths=(32,),
            kinds=(kind,),
            batch_sizes=(4,),
            blocks=0,
            torch=False,
            seconds=0.0,
            bursts=1,
            json=str(path),
        )
    )
    (row,) = json.loads(path.read_text())["rows"]
    assert row["bytes"] > 0
    times = row["milliseconds"]
    assert 0 < times["forward"] < times["step"]


@pytest.mark.parametrize("kind", ["deepprism", "dense"])
def test_torch_has_the_same_parameters(benchmark_module, kind):
    pytest.importorskip("torch")
    training = benchmark_module("torch_autoencoder").Training
    twin = training(kind, 64, layout="contiguous", dtype="float32")
    shapes = Functional(abstract_autoencoder(64, kind, 1)).shapes
    assert twin.parameters == sum(leaf.size for leaf in shapes.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_torch_learns(benchmark_module, dtype):
    torch = pytest.importorskip("torch")
    training = benchmark_module("torch_autoencoder").Training
    torch.manual_seed(0)
    twin = training("deepprism", 32, 0, layout="channels_last", dtype=dtype)
    images = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    losses = [float(twin.step(images)) for _ in range(8)]
    assert min(losses[4:]) < losses[0]
    assert twin.forward(images)[0].shape == (1, 3, 8, 8)
