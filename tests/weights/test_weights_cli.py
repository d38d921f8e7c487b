"""The command line of `python -m deepprism_jax.weights`."""

from pathlib import Path

import numpy as np
import pytest
from local_server import serving

from deepprism_jax.models.feature_networks import ALEXNET
from deepprism_jax.weights import store
from deepprism_jax.weights.__main__ import main
from deepprism_jax.weights.registry import REGISTRY


@pytest.fixture(autouse=True)
def empty_store(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPPRISM_WEIGHTS", str(tmp_path / "store"))
    monkeypatch.setenv("DEEPPRISM_WEIGHTS_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "store"


@pytest.fixture
def heads(tmp_path):
    state = {f"alex.lin{n}": np.ones(c) for n, c in enumerate(ALEXNET.channels)}
    np.savez(tmp_path / "heads.npz", **state)
    return str(tmp_path / "heads.npz")


def test_list_names_everything_and_what_is_there(capsys, heads, empty_store):
    main(["get", "lpips_alex", "--from", heads])
    capsys.readouterr()
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.strip() for line in out.splitlines() if line.strip()}
    for name, entry in REGISTRY.items():
        assert entry.licence in rows[name]
        assert rows[name].endswith(" no") == (name != "lpips_alex")
    assert "by names and shapes" in rows["lpips_alex"]
    assert str(empty_store) in out


def test_get_takes_a_file_once(capsys, heads, empty_store):
    assert main(["get", "lpips_alex", "--from", heads]) == 0
    path = empty_store / "lpips_alex.safetensors"
    out, err = capsys.readouterr()
    assert f"lpips_alex: {path}, checked by names and shapes, " in out
    assert store.fingerprint(path) in out
    assert err == ""
    assert main(["get", "lpips_alex", "--from", heads]) == 0
    assert f"is there: {path}; delete it" in capsys.readouterr().out


def test_get_replaces_what_is_not_what_it_is_called(capsys, heads, empty_store):
    main(["get", "lpips_alex", "--from", heads])
    path = empty_store / "lpips_alex.safetensors"
    before = path.read_bytes()
    other = empty_store / "lpips_vgg.safetensors"
    other.write_bytes(before)  # of another network
    path.write_bytes(before[:-1])
    capsys.readouterr()
    main(["list"])
    assert capsys.readouterr().out.count("not its weights") == 2

    assert main(["get", "lpips_vgg", "--from", heads]) == 2  # it has those of AlexNet
    out = capsys.readouterr().out
    assert f"{other} is not lpips_vgg: lin1.model.1.weight has shape" in out
    assert other.read_bytes() == before  # kept until there is better
    assert main(["get", "lpips_alex", "--from", heads]) == 0
    assert f"{path} is not lpips_alex: it is damaged" in capsys.readouterr().out
    assert store.find("lpips_alex") == path


def test_get_of_several_goes_on_after_a_failure(capsys, heads):
    main(["get", "lpips_alex", "--from", heads])
    capsys.readouterr()
    assert main(["get", "lpips_vgg", "lpips_alex", "alexnet"]) == 2
    out, err = capsys.readouterr()
    assert "lpips_alex is there" in out
    errors = err.splitlines()
    assert [line.split(":")[1] for line in errors] == [
        " cannot get lpips_vgg",
        " cannot get alexnet",
    ]


def test_get_draws_a_bar_while_bytes_come(capsys):
    content = bytes(REGISTRY["lpips_vgg"].size)
    with serving(content) as server:
        assert main(["get", "lpips_vgg", "--url", server.address]) == 2
    err = capsys.readouterr().err
    assert "7.3/7.3 kB" in err
    assert "is another file" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["get"], "give a name of the list"),
        (["get", "vgg16", "alexnet", "--from", "x"], "with --from or --url only one"),
        (["get", "alexnet", "vgg"], "unknown weights 'vgg'; perhaps you meant vgg16"),
        (["path", "vgg"], "unknown weights 'vgg'"),
        (["path", "vgg16"], "run python -m deepprism_jax.weights get vgg16"),
    ],
)
def test_mistakes_are_refused_in_one_line(capsys, arguments, says, empty_store):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert not empty_store.exists()


def test_path_prints_the_file_alone(capsys, heads, empty_store):
    main(["get", "lpips_alex", "--from", heads])
    capsys.readouterr()
    assert main(["path", "lpips_alex"]) == 0
    out = capsys.readouterr().out.strip()
    assert Path(out) == empty_store / "lpips_alex.safetensors"
    assert Path(out).is_file()
