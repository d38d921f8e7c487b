"""Evaluations from the options to the files, by a network that costs nothing."""

import csv
import json
from dataclasses import replace
from typing import NamedTuple

import corner
import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from rich.console import Console

from deepprism_jax.data import make_source
from deepprism_jax.evaluation import program
from deepprism_jax.evaluation.generated import evaluate_folder
from deepprism_jax.evaluation.options import Options
from deepprism_jax.evaluation.setup import FailedError
from deepprism_jax.evaluation.trained import Trained
from deepprism_jax.training.config import DataConfig
from deepprism_jax.training.preflight import PreflightError
from deepprism_jax.training.sharding import make_mesh

CONSOLE = Console(quiet=True)
TEST = make_source("photos", split="test", image_size=(16, 16))
FEW = Options(limit=22, kid_subset=8, splits=2, baselines=False, extremes=3)


@pytest.fixture(autouse=True)
def inception(monkeypatch, tmp_path):
    """The store holds a network called `inception` that looks at some pixels."""
    corner.be_inception(monkeypatch, tmp_path)


class Code(NamedTuple):
    mean: jax.Array


class Dimmer(nnx.Module):
    """A model that halves the contrast."""

    factor, options = 4, {"image_channels": 3}

    def __init__(self, scale=0.5):
        self.scale = nnx.Param(jax.numpy.float32(scale))

    def reconstruct(self, x):
        return self.scale[...] * x

    def encode(self, x):
        return Code(x[:, ::4, ::4])


def trained(path, scale=0.5):
    return Trained(Dimmer(scale), DataConfig(image_size=(16, 16)), 7, path)


def progress(batches, words, count):
    return batches


def run(path, options=FEW, scale=0.5):
    path.mkdir(exist_ok=True)
    program.evaluate_model(trained(path, scale), options, CONSOLE, progress)
    return json.loads((path / "metrics.json").read_text())


def figures(report):
    return {
        (method["method"], name): score["value"]
        for method in report["methods"]
        for name, score in method.items()
        if isinstance(score, dict)
    }


def test_a_run_of_all_metrics_writes_every_file(tmp_path):
    report = run(tmp_path / "run")
    model, images = report["methods"]
    names = {"psnr", "ssim", "is", "fid", "kid", "precision", "recall"}
    assert names <= model.keys()
    assert images["method"] == "the images"
    assert images["is"]["images"] == 22
    facts = report["provenance"]
    assert facts["networks"]["inception"]["weights"] == "f" * 16
    assert facts["skipped"][0].startswith("lpips_vgg: the weights of vgg16")
    assert (facts["step"], facts["images"], facts["kid_subset"]) == (7, 22, 8)
    written = {p.name for p in (tmp_path / "run").iterdir()}
    assert written == {
        *("metrics.json", "metrics.md", "metrics.csv", "per_image.csv"),
        *("eval.png", "extremes.png"),
    }
    with (tmp_path / "run" / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    places = [int(row["index"]) for row in rows]
    assert places == [i * len(TEST) // 22 for i in range(22)]
    values = [float(row["psnr"]) for row in rows]
    assert np.mean(values) == pytest.approx(model["psnr"]["value"], rel=1e-5)


def test_files_of_an_earlier_evaluation_do_not_stay_beside_others(tmp_path):
    run(tmp_path / "run")
    report = run(tmp_path / "run", replace(FEW, metrics=("fid",)))
    assert figures(report).keys() == {("model", "fid")}
    written = {p.name for p in (tmp_path / "run").iterdir()}
    assert written == {"metrics.json", "metrics.md", "metrics.csv", "eval.png"}


def test_one_device_gives_the_figures_of_four(tmp_path, monkeypatch):
    four = run(tmp_path / "four")
    one = make_mesh(jax.devices()[:1])
    monkeypatch.setattr(program, "make_mesh", lambda: one)
    options = replace(FEW, batch_size=5, cache=False)
    assert figures(run(tmp_path / "one", options)) == pytest.approx(
        figures(four), rel=1e-5
    )


def test_a_model_of_nans_fails_in_a_line_and_leaves_old_figures(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.json").write_text("old")
    with pytest.raises(FailedError, match="every reconstruction by model has NaN"):
        run(tmp_path / "run", scale=float("nan"))
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["metrics.json"]
    assert (tmp_path / "run" / "metrics.json").read_text() == "old"


class Flawed(Dimmer):
    """Gives no numbers for images that are bright at one place."""

    def reconstruct(self, x):
        bright = x[:, :1, :1, :1] > 0
        return jax.numpy.where(bright, jax.numpy.nan, x / 2)


@pytest.mark.slow
def test_a_few_nans_cost_the_metrics_that_need_all_images_and_no_others(tmp_path):
    model = Trained(Flawed(), DataConfig(image_size=(16, 16)), 7, tmp_path)
    options = replace(FEW, kid_subset=22, baselines=True)
    program.evaluate_model(model, options, CONSOLE, progress)
    report = json.loads((tmp_path / "metrics.json").read_text())
    flawed = report["methods"][0]
    assert 1 < flawed["psnr"]["count"] < 22
    assert "fid" in flawed
    assert "kid" not in flawed
    notes = "; ".join(report["provenance"]["notes"])
    assert "reconstructions by model have NaN or infinite numbers" in notes
    assert "kid left out: kernel distance over subsets of 22" in notes
    # Of fewer images, the model is not the best of anything.
    program.main(Options(compare=(tmp_path,), output=tmp_path))
    table = (tmp_path / "compare.md").read_text()
    (row,) = (line for line in table.splitlines() if f"| {tmp_path.name} |" in line)
    figure = f"{flawed['psnr']['value']:.2f}"
    assert figure in row
    assert f"**{figure}" not in row


def test_runs_are_put_side_by_side(tmp_path, capsys):
    run(tmp_path / "a")
    run(tmp_path / "b", scale=0.9)
    both = Options(compare=(tmp_path / "a", tmp_path / "b"), output=tmp_path)
    program.main(both)
    assert (tmp_path / "compare.md").read_text().startswith("| method | PSNR")
    printed = capsys.readouterr().out
    assert "paper: DeepPrism" in printed
    assert " a " in printed
    with pytest.raises(PreflightError, match="nowhere"):
        program.main(Options(compare=(tmp_path / "nowhere",)))


@pytest.fixture
def folders(tmp_path):
    """Real and generated images, 12 of 16x16 each."""
    rng = np.random.default_rng(0)
    for name, darkest in (("real", 0), ("made", 100)):
        (tmp_path / name).mkdir()
        for number in range(12):
            pixels = rng.integers(darkest, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    return tmp_path


def measure(folders, **options):
    chosen = replace(FEW, subject=folders / "made", limit=0, **options)
    evaluate_folder(chosen, CONSOLE, progress)
    return json.loads((folders / "made-eval" / "metrics.json").read_text())


def test_generated_images_are_compared_with_real_ones_or_a_reference(folders):
    real = {"source": "folder", "path": str(folders / "real"), "split": "."}
    file = folders / "reference.npz"
    report = measure(folders, **real, save_reference=file)
    generated, images = report["methods"]
    assert generated.keys() >= {"is", "fid", "kid", "precision", "recall"}
    assert "psnr" not in generated
    assert (generated["method"], images["method"]) == ("generated", "the images")
    assert (report["provenance"]["images"], generated["fid"]["count"]) == (12, 12)
    again = measure(folders, reference=file)
    expected = {k: v for k, v in figures(report).items() if k[0] == "generated"}
    assert figures(again) == expected

    pixels = [np.asarray(Image.open(p)) for p in sorted((folders / "real").iterdir())]
    features = corner.Corner().apply(corner.PARAMS, np.stack(pixels)).pool
    with np.load(file) as saved:
        np.testing.assert_allclose(saved["mu"], np.mean(features, 0), rtol=1e-6)


def test_generated_images_of_other_sizes_are_refused(folders):
    real = {"source": "folder", "path": str(folders / "real"), "split": "."}
    with pytest.raises(PreflightError, match="is 16x16 and not 32x32 as asked for"):
        measure(folders, **real, image_size=(32, 32))
    Image.new("RGB", (20, 16)).save(folders / "made" / "5.png")
    with pytest.raises(PreflightError, match=r"5\.png is 16x20 and not 16x16 as the"):
        measure(folders, **real)
    assert not (folders / "made-eval").exists()


def test_a_reference_of_another_resolution_is_refused(folders, tmp_path):
    real = {"source": "folder", "path": str(folders / "real"), "split": "."}
    file = folders / "reference.npz"
    measure(folders, **real, save_reference=file)
    for path in (folders / "made").iterdir():
        Image.open(path).resize((8, 8)).save(path)
    with pytest.raises(PreflightError, match="images of 16x16, and these are 8x8"):
        measure(folders, reference=file)
    with pytest.raises(PreflightError, match="give their --source"):
        measure(folders, reference=file, save_reference=tmp_path / "new.npz")


def test_images_that_lie_on_their_side_are_measured_as_they_are_shown(folders):
    pixels = np.zeros((24, 16, 3), np.uint8)
    for path in (folders / "made").iterdir():
        path.unlink()
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels).save(folders / "made" / "a.jpg", exif=turned)
    Image.fromarray(pixels).save(folders / "made" / "b.jpg")
    with pytest.raises(PreflightError, match=r"b\.jpg is 24x16 and not 16x24"):
        measure(folders, source="folder", path=str(folders / "real"), split=".")


def test_unreadable_images_are_counted(folders):
    data = (folders / "made" / "7.png").read_bytes()
    (folders / "made" / "7.png").write_bytes(data[: len(data) // 2])
    report = measure(folders, source="folder", path=str(folders / "real"), split=".")
    notes = "; ".join(report["provenance"]["notes"])
    assert "1 of 12 images could not be read" in notes
    assert report["methods"][0]["fid"]["count"] == 11


@pytest.mark.parametrize("option", [{"splits": 0}, {"kid_subset": 1}])
def test_settings_that_no_images_allow_are_refused(folders, option):
    with pytest.raises(PreflightError, match="must be at least"):
        measure(
            folders, source="folder", path=str(folders / "real"), split=".", **option
        )


def test_generated_images_need_something_to_be_compared_with(folders):
    with pytest.raises(PreflightError, match=r"give --source .* or --reference"):
        measure(folders)


def test_a_folder_of_images_is_told_from_a_model(folders, tmp_path):
    assert program.is_folder_of_images(folders / "made")
    run(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text("{}")
    assert not program.is_folder_of_images(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    assert not program.is_folder_of_images(tmp_path / "empty")
    assert not program.is_folder_of_images(tmp_path / "nowhere")
