"""The command that exports a trained model, and what it refuses."""

import sys
import zipfile

import pytest
from flax import nnx

from deepprism_jax.models import AutoencoderKL
from deepprism_jax.weights.__main__ import main

pytestmark = pytest.mark.usefixtures("without_type_checks")


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small"
    model = AutoencoderKL(
        width=4, norm_groups=2, downsamples=0, blocks=0, rngs=nnx.Rngs(0)
    )
    model.save_pretrained(path)
    return str(path)


def test_the_command_writes_one_file_and_no_second_time(small, tmp_path, capsys):
    output = tmp_path / "small.zip"
    command = ["export", small, "--output", str(output)]
    assert main(command) == 0
    assert "small.zip: encode, decode, " in capsys.readouterr().out
    assert zipfile.ZipFile(output).namelist() == ["encode", "decode", "model.json"]
    before = output.read_bytes()
    assert main(command) == 2
    assert "is there: choose another name, or delete it" in capsys.readouterr().err
    assert output.read_bytes() == before


def test_what_is_no_model_is_refused_in_a_line(tmp_path, capsys):
    output = tmp_path / "out.zip"
    for source in ("no-such-model", str(tmp_path)):
        assert main(["export", source, "--output", str(output)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
    (tmp_path / "config.json").write_text('{"class": "Discriminator", "options": {}}')
    assert main(["export", str(tmp_path), "--output", str(output)]) == 2
    assert "holds Discriminator, not one of AutoencoderKL" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_without_the_converter_onnx_is_refused(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    command = ["export", small, "--format", "onnx"]
    assert main([*command, "--output", str(tmp_path / "out.zip")]) == 2
    assert "pip install 'deepprism-jax[onnx]'" in capsys.readouterr().err
