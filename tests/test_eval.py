"""`eval.py` on a work directory and on an export, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from entry_points import load_main, random_model
from flax import nnx
from PIL import Image

from deepprism_jax.data import make_source
from deepprism_jax.evaluation import comparison
from deepprism_jax.evaluation.trained import load_trained
from deepprism_jax.layers.functional import values_of
from deepprism_jax.metrics.baselines import bicubic_down_up
from deepprism_jax.metrics.psnr import psnr
from deepprism_jax.models import AutoencoderKL
from deepprism_jax.training.config import Config, DataConfig
from deepprism_jax.training.workdir import claim
from deepprism_jax.weights.items import save_items
from deepprism_jax.weights.pretrained import describe, save_pretrained

# Convolutions are dense because those compile fastest.
OPTIONS = {
    "conv": "dense",
    "width": 8,
    "blocks": 0,
    "norm_groups": 4,
    "attention": False,
}
CONFIG = Config(data=DataConfig(image_size=(16, 16)))


main = load_main("eval")


def make_model(seed):
    return random_model(lambda: AutoencoderKL(**OPTIONS, rngs=nnx.Rngs(0)), seed)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run with two checkpoints of different values, and an export of the second."""
    path = tmp_path_factory.mktemp("written")
    with claim(path / "run", CONFIG, resume=False):
        (path / "run" / "checkpoints").mkdir()
        for step in (5, 10):
            model = make_model(step)
            items = {"ema": values_of(model), "config": {"model": describe(model)}}
            save_items(path / "run" / "checkpoints" / str(step), items)
    save_pretrained(make_model(10), path / "export")
    return path


@pytest.fixture
def workdir(written, tmp_path):
    return Path(shutil.copytree(written / "run", tmp_path / "run"))


@pytest.fixture
def export(written, tmp_path):
    return Path(shutil.copytree(written / "export", tmp_path / "export"))


def read(path):
    return json.loads((path / "metrics.json").read_text())


def test_a_work_directory_is_measured_beside_its_baselines(
    workdir, capsys, monkeypatch
):
    monkeypatch.setattr(comparison, "FEWEST", 60)
    monkeypatch.setattr(comparison, "CHUNK", 30)
    arguments = [str(workdir), "--image-size", "16", "24", "--limit", "5"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    report = read(workdir)
    names = ["model", "bicubic 4x", "PCA-59"]
    assert [method["method"] for method in report["methods"]] == names
    assert all(name in printed for name in names)
    for method in report["methods"]:
        assert method["psnr"]["count"] == method["ssim"]["count"] == 5
        assert f"{method['psnr']['value']:.2f} ± {method['psnr']['std']:.2f}" in printed

    facts = report["provenance"]
    assert (facts["source"], facts["split"], facts["step"]) == ("photos", "test", 10)
    assert (facts["images"], facts["image_size"]) == (5, [16, 24])
    assert facts["notes"][0].startswith("PCA-59 was fitted on 60 images")

    source = make_source("photos", split="test", image_size=(16, 24))
    places = np.arange(5) * len(source) // 5
    images = np.stack([source[int(i)]["image"] for i in places])
    expected = np.asarray(psnr(images, bicubic_down_up(images, 4)))
    figures = report["methods"][1]["psnr"]
    assert figures["value"] == pytest.approx(expected.mean(), rel=1e-5)
    assert figures["std"] == pytest.approx(expected.std(), rel=1e-4)
    with Image.open(workdir / "eval.png") as picture:
        assert picture.height >= 4 * 2 * 16


def test_an_export_is_measured_where_its_data_are_named(export, tmp_path, capsys):
    before = sorted(export.iterdir())
    arguments = [str(export), "--source", "photos", "--limit", "3", "--no-baselines"]
    assert main([*arguments, "--image-size", "16", "16"]) == 0
    report = read(tmp_path / "export-eval")
    assert [method["method"] for method in report["methods"]] == ["model"]
    assert report["provenance"]["step"] is None
    assert "an export" in capsys.readouterr().out
    # An export with strange files in it could not be written again.
    assert sorted(export.iterdir()) == before


def test_the_checkpoint_before_a_damaged_one_is_taken(workdir, caplog):
    for file in (workdir / "checkpoints" / "10" / "ema").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    assert main([str(workdir), "--limit", "3", "--no-baselines"]) == 0
    assert read(workdir)["provenance"]["step"] == 5
    assert "checkpoint 10 cannot be read" in caplog.text


def test_a_given_and_the_best_checkpoint_are_measured(workdir, capsys):
    manifest = workdir / "checkpoints" / "5" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"score": 1.0}))
    checkpoints = workdir / "checkpoints"
    assert main([str(checkpoints / "best"), "--limit", "1", "--no-baselines"]) == 0
    assert read(workdir / "eval-5")["provenance"]["step"] == 5
    assert load_trained(checkpoints / "10").step == 10
    assert not (workdir / "metrics.json").exists()

    manifest.write_text("{")
    for name, said in (
        ("5", "cannot be read: manifest.json is missing or damaged"),
        ("best", "no checkpoint has a score; give a step, or train with"),
        (
            "7",
            "checkpoints/7 is no complete checkpoint; choose one of those there: 5, 10",
        ),
    ):
        capsys.readouterr()
        assert main([str(checkpoints / name)]) == 2
        assert said in capsys.readouterr().err
    assert main(["gs://bucket/run"]) == 2
    assert "copy the run here first" in capsys.readouterr().err


def test_the_averaged_parameters_are_what_is_measured(workdir, export, tmp_path):
    options = ["--limit", "3", "--no-baselines"]
    assert main([str(workdir), *options]) == 0
    there = [
        "--source",
        "photos",
        "--image-size",
        "16",
        "16",
        "--output",
        str(tmp_path),
    ]
    assert main([str(export), *options, *there]) == 0
    assert read(workdir)["methods"] == read(tmp_path)["methods"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}/nowhere"], "nowhere is no directory; give the work directory of"),
        (["{run}/nowhere", "--samples", "2"], "nowhere is no directory; give the"),
        (["{run}/checkpoints"], "is no work directory: it has no config.json"),
        (["{export}"], "an export does not name its data; give --source"),
        (
            ["{run}", "--image-size", "30", "32"],
            "30x32 is not divisible by the factor 4",
        ),
        (["{run}", "--split", "validation"], "validation"),
        (["{run}", "--batch-size", "-1"], "batch size -1 must be a multiple"),
        (["{run}", "--limit", "-1"], "limit=-1"),
        (["{run}", "--source", "folder", "--path", "{run}/no"], "/no"),
        (["{run}", "--output", "{run}/config.json"], "config.json"),
        (["{run}", "--splt", "x"], "unknown option --splt; perhaps you meant --split"),
        ([], "nothing to evaluate; give the work directory"),
        (["{run}", "--compare", "{run}"], "put SUBJECT behind it"),
        (["{run}", "--metrics", "lpips"], "unknown metric 'lpips'; choose from psnr"),
        (["{run}", "--metrics", "fid"], "nothing to measure: fid: the weights of inc"),
        (["{run}", "--metrics", "ms_ssim"], "ms_ssim needs images of at least 161x161"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments, message, workdir, export, capsys):
    filled = [text.format(run=workdir, export=export) for text in arguments]
    assert main(filled) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert not (workdir / "metrics.json").exists()


def test_a_run_without_a_checkpoint_is_refused(tmp_path, capsys):
    with claim(tmp_path, CONFIG, resume=False):
        pass
    assert main([str(tmp_path)]) == 2
    assert "has no checkpoint yet" in capsys.readouterr().err
