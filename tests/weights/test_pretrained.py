import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import deepprism_jax
from deepprism_jax.layers.functional import values_of
from deepprism_jax.models import AutoencoderVQ
from deepprism_jax.weights.items import save_items
from deepprism_jax.weights.pretrained import (
    CHECKPOINTS,
    PretrainedMixin,
    class_name,
    describe,
    from_pretrained,
    save_pretrained,
)


class Buffer(nnx.Variable):
    pass


class Line(PretrainedMixin, nnx.Module):
    """A stand-in model with parameters in a list, and a buffer."""

    def __init__(self, *, width=4, rngs):
        self.options = nnx.static({"width": width})
        self.layers = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(2)])
        self.usage = Buffer(jnp.arange(float(width)))

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x + self.usage[...]


class Curve(Line):
    pass


X = np.linspace(-1, 1, 4, dtype=np.float32)


@pytest.fixture
def line():
    return Line(rngs=nnx.Rngs(3))


@pytest.fixture
def export(tmp_path, line):
    line.save_pretrained(tmp_path / "export")
    return tmp_path / "export"


def checkpoint(workdir, step, model):
    (workdir / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    save_items(
        workdir / CHECKPOINTS / str(step),
        {"ema": values_of(model), "config": {"model": describe(model)}},
    )


def test_export_and_import_are_exact(export, line):
    np.testing.assert_array_equal(Line.from_pretrained(export)(X), line(X))
    assert json.loads((export / "config.json").read_text()) == {
        "class": "Line",
        "options": {"width": 4},
        "deepprism_jax": deepprism_jax.__version__,
    }
    assert sorted(load_file(export / "model.safetensors")) == [
        "layers.0.bias",
        "layers.0.kernel",
        "layers.1.bias",
        "layers.1.kernel",
        "usage",
    ]
    assert class_name(export) == "Line"


def test_orbax_half_of_the_export_is_enough(export, line):
    (export / "model.safetensors").unlink()
    np.testing.assert_array_equal(Line.from_pretrained(export)(X), line(X))


def test_an_autoencoder_comes_back_with_its_codebook(tmp_path):
    options = {"width": 8, "norm_groups": 2, "blocks": 0, "codebook_update": "gradient"}
    shapes = nnx.eval_shape(lambda: AutoencoderVQ(**options, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(shapes)
    random = np.random.default_rng(0)
    model = nnx.merge(
        graphdef,
        jax.tree.map(
            lambda x: jnp.asarray(random.normal(size=x.shape), x.dtype), state
        ),
    )
    model.save_pretrained(str(tmp_path / "model"))
    again = AutoencoderVQ.from_pretrained(str(tmp_path / "model"))
    assert again.options == model.options
    assert again.options["codebook_update"] == "gradient"
    assert "codebook.usage" in values_of(again)
    jax.tree.map(np.testing.assert_array_equal, values_of(again), values_of(model))


def test_an_export_is_replaced_and_nothing_else_is(export, line, tmp_path):
    line.usage[...] = line.usage[...] + 1
    line.save_pretrained(export)
    np.testing.assert_array_equal(Line.from_pretrained(export)(X), line(X))
    (tmp_path / "empty").mkdir()
    line.save_pretrained(tmp_path / "empty")
    (export / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds something else"):
        line.save_pretrained(export)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="holds something else"):
        line.save_pretrained(tmp_path / "file")
    assert (export / "notes.txt").read_text() == "mine"
    assert {p.name for p in tmp_path.iterdir()} == {"export", "empty", "file"}


@pytest.mark.parametrize(
    "config", [None, "{", "[]", '{"model_type": "bert"}', '{"class": 1, "options": 2}']
)
def test_the_files_of_another_library_are_not_replaced(tmp_path, line, config):
    there = tmp_path / "bert"
    there.mkdir()
    (there / "model.safetensors").write_text("mine")
    if config is not None:
        (there / "config.json").write_text(config)
    with pytest.raises(FileExistsError, match="holds something else"):
        line.save_pretrained(there)
    assert (there / "model.safetensors").read_text() == "mine"


def test_a_failed_export_leaves_the_old_one(export, line, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    before = line(X)
    line.usage[...] = line.usage[...] + 1
    monkeypatch.setattr("deepprism_jax.weights.pretrained.save_items", full)
    with pytest.raises(OSError, match="No space left"):
        save_pretrained(line, export)
    np.testing.assert_array_equal(Line.from_pretrained(export)(X), before)
    assert [p.name for p in export.parent.iterdir()] == ["export"]


def test_an_export_that_cannot_be_renamed_leaves_the_old_one(export, line, monkeypatch):
    def refuse(path, target):
        if path.name.endswith(".part"):
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    rename, before = Path.rename, line(X)
    line.usage[...] = line.usage[...] + 1
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError):
        line.save_pretrained(export)
    np.testing.assert_array_equal(Line.from_pretrained(export)(X), before)
    assert [p.name for p in export.parent.iterdir()] == ["export"]


def test_a_training_run_gives_its_newest_readable_average(tmp_path, line, caplog):
    other = Line(rngs=nnx.Rngs(4))
    checkpoint(tmp_path, 9, other)
    checkpoint(tmp_path, 10, line)
    np.testing.assert_array_equal(Line.from_pretrained(tmp_path)(X), line(X))
    assert class_name(tmp_path) == "Line"
    cut = max(
        (tmp_path / CHECKPOINTS / "10" / "ema").rglob("*"),
        key=lambda p: p.stat().st_size if p.is_file() else 0,
    )
    cut.write_bytes(cut.read_bytes()[:-9])
    np.testing.assert_array_equal(Line.from_pretrained(tmp_path)(X), other(X))
    assert "taking the one before" in caplog.text
    with pytest.raises(ValueError, match="holds Line, not Curve"):
        Curve.from_pretrained(tmp_path)


def rewrite(export, **changes):
    values = load_file(export / "model.safetensors")
    for name, value in changes.items():
        if value is None:
            del values[name]
        else:
            values[name] = value
    save_file(values, export / "model.safetensors")


def fail(path, match, error=ValueError, cls=Line):
    with pytest.raises(error, match=match) as caught:
        from_pretrained(cls, path)
    assert "\n" not in str(caught.value)


def test_errors_are_one_line_and_name_the_value(export, tmp_path):
    fail(tmp_path / "nowhere", "nowhere has no config.json", FileNotFoundError)
    fail(export, "holds Line, not Curve: call Line.from_pretrained", cls=Curve)
    rewrite(export, usage=np.zeros(5, np.float32))
    fail(export, r"usage has shape \(5,\).*ask for \(4,\)")
    rewrite(export, usage=None)
    fail(export, "lacks 1 values: usage")
    rewrite(export, usage=np.zeros(4, np.float32), more=np.zeros(4, np.float32))
    fail(export, "has in excess 1 values: more")
    weights = export / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    fail(export, r"model.safetensors is damaged")
    weights.unlink()
    (export / "orbax" / "manifest.json").unlink()
    fail(export, r"orbax cannot be read: manifest.json")
    shutil.rmtree(export / "orbax")
    fail(export, r"has no model.safetensors", FileNotFoundError)
    (export / "config.json").write_text('{"class": "Line", "options": {"depth": 3}}')
    fail(export, "unexpected keyword argument 'depth'")
    (export / "config.json").write_text('{"class"')
    fail(export, "not the description of a model")


def test_a_run_without_a_readable_checkpoint_says_so(tmp_path, line):
    (tmp_path / "config.json").write_text('{"deepprism_jax": "0.1", "config": {}}')
    for _ in range(2):  # without and with a directory for them
        fail(tmp_path, "has no checkpoint yet; wait for the first", FileNotFoundError)
        with pytest.raises(FileNotFoundError, match="has no checkpoint yet"):
            class_name(tmp_path)
        (tmp_path / CHECKPOINTS).mkdir(exist_ok=True)
    checkpoint(tmp_path, 3, line)
    manifest = tmp_path / CHECKPOINTS / "3" / "manifest.json"
    manifest.write_text("{")
    fail(tmp_path, "checkpoint 3: manifest.json is missing", FileNotFoundError)
    with pytest.raises(FileNotFoundError, match="no checkpoint that can be read"):
        class_name(tmp_path)
    manifest.unlink()  # as a save that was cut off leaves it
    fail(tmp_path, "has no checkpoint yet", FileNotFoundError)
