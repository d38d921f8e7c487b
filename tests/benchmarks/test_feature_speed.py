import json

import numpy as np
import pytest

SMALL = {"batch_size": 1, "torch": False, "seconds": 0.0, "bursts": 1}


@pytest.fixture
def program(benchmark_module):
    return benchmark_module("feature_networks")


@pytest.mark.parametrize(
    "networks",
    [
        ("lpips",),
        pytest.param(("inception", "efficientnet_lite0"), marks=pytest.mark.slow),
    ],
)
def test_rates_are_written(program, networks, tmp_path, monkeypatch):
    monkeypatch.setitem(program._SIZES, "lpips", (32,))
    path = tmp_path / "figures.json"
    program.main(program.Options(networks=networks, json=str(path), **SMALL))
    rows = json.loads(path.read_text())["rows"]
    assert [(row["network"], row["name"]) for row in rows] == [
        (network, "JAX") for network in networks
    ]
    for row in rows:
        assert row["per_second"] == pytest.approx(1e3 / row["milliseconds"])


def test_random_weights_keep_activations_of_order_1(program):
    state = program.random_state(
        {"conv.weight": (64, 32, 3, 3), "bn.running_var": (64,), "bn.bias": (64,)}
    )
    np.testing.assert_allclose(state["conv.weight"].std(), np.sqrt(2 / 288), rtol=0.05)
    assert state["bn.running_var"].min() > 0.8
    assert np.abs(state["bn.bias"]).max() < 0.5
    heads = {n: t for n, t in program.lpips_state().items() if n.startswith("lin")}
    assert len(heads) == 7
    assert all(head.min() >= 0 for head in heads.values())


def test_a_missing_peer_is_named(program, monkeypatch, capsys):
    monkeypatch.setattr(program.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(
        program,
        "network_subjects",
        lambda network, size, options, with_torch: [] if not with_torch else 1 / 0,
    )
    monkeypatch.setattr(program, "check", lambda *arguments: None)
    options = program.Options(networks=("inception",))
    assert program.subjects(options) == []
    assert "pip install torch-fidelity torch" in capsys.readouterr().out
    program.subjects(program.Options(networks=("inception",), torch=False))
    assert capsys.readouterr().out == ""


def test_a_wrong_result_stops(program):
    wanted = [np.ones((2, 3))]
    program.check("peer", [np.ones((2, 3)) + 1e-6], wanted)
    with pytest.raises(SystemExit, match=r"error: peer differs by 1\.0e-03"):
        program.check("peer", [np.ones((2, 3)) + 1e-3], wanted)


def test_no_images_are_refused(program):
    with pytest.raises(SystemExit, match="--batch-size 0: at least one"):
        program.main(program.Options(batch_size=0))


@pytest.mark.parametrize(
    ("network", "package"),
    [
        ("lpips", "lpips"),
        ("inception", "torch_fidelity"),
        ("efficientnet_lite0", "efficientnet_lite_pytorch"),
    ],
)
def test_the_peer_gives_the_same(program, network, package):
    pytest.importorskip("torch")
    pytest.importorskip(package)
    options = program.Options(networks=(network,), batch_size=1, bursts=1)
    made = program.network_subjects(network, 32, options, with_torch=True)
    assert [subject.name for subject in made] == [
        "JAX",
        "torch contiguous",
        "torch channels_last",
    ]
    for other in made[1:]:
        program.check(other.label, other.run(), made[0].run())
