"""Samples of models of one image, from the options to the files."""

import json
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from deepprism_jax.evaluation import program, side_by_side
from deepprism_jax.evaluation.options import Options
from deepprism_jax.evaluation.records import write_json
from deepprism_jax.evaluation.setup import FailedError
from deepprism_jax.evaluation.single_image import suite as suites
from deepprism_jax.evaluation.single_image.folder import evaluate_samples
from deepprism_jax.evaluation.single_image.report import picture, with_mean
from deepprism_jax.evaluation.table4 import COLUMNS, Row
from deepprism_jax.losses import PerceptualDistance
from deepprism_jax.metrics.pixel_diversity import PixelDiversity
from deepprism_jax.metrics.sifid import patches, sifid
from deepprism_jax.metrics.state import Score
from deepprism_jax.models.early_maps import EarlyMaps
from deepprism_jax.training.preflight import PreflightError

CONSOLE = Console(quiet=True)
MIXED = jnp.eye(3) + 0.5


class Shades:
    """A feature network that costs nothing."""

    channels = (3,)

    def apply(self, params, images):
        return [images @ params + 2.0]


DISTANCE = PerceptualDistance(Shades(), MIXED, (jnp.arange(3.0),))
LAYER = EarlyMaps("Tiny", "shades", 3, lambda params, x: (x @ params)[:, ::4, ::4])


@pytest.fixture(autouse=True)
def squeeze(monkeypatch):
    """The store holds a SqueezeNet that mixes colours, and nothing else."""
    names = ("squeezenet1_1", "lpips_squeeze")
    find = lambda name: Path(name) if name in names else None  # noqa: E731
    monkeypatch.setattr(suites.store, "find", find)
    monkeypatch.setattr(suites.store, "fingerprint", lambda path: f"of {path}")
    monkeypatch.setattr(suites.store, "facts", lambda path: {"checked": "sha256"})
    monkeypatch.setitem(suites.EARLY_MAPS, "squeeze", LAYER)
    monkeypatch.setattr(suites, "load_feature_network", lambda net, path: MIXED)
    monkeypatch.setattr(suites, "load_perceptual_distance", lambda *args: DISTANCE)


def draw(count, size=(40, 36), seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *size, 3), dtype=np.uint8)


REAL = draw(1, (36, 44), seed=1)[0]


@pytest.fixture
def folder(tmp_path):
    """What `sample.py` leaves: five images named by seeds, and others beside them."""
    (tmp_path / "drawn").mkdir()
    for number, pixels in enumerate(draw(5)):
        Image.fromarray(pixels).save(tmp_path / "drawn" / f"{number:04}.png")
    Image.new("RGB", (99, 50)).save(tmp_path / "drawn" / "grid.png")
    (tmp_path / "drawn" / "samples.json").write_text("{}")
    Image.fromarray(REAL).save(tmp_path / "leaves.png")
    return tmp_path


def test_what_went_in_is_no_sample_of_a_drawing_that_broke_off(folder):
    (folder / "drawn" / "samples.json").unlink()
    (folder / "drawn" / "grid.png").unlink()
    Image.fromarray(REAL).save(folder / "drawn" / "input.png")
    assert measure(folder)["provenance"]["images"] == 5


def test_the_grid_of_a_drawing_is_no_sample_where_no_other_is_left(folder):
    for image in (folder / "drawn").glob("0*.png"):
        image.unlink()
    with pytest.raises(PreflightError, match="drawn"):
        measure(folder)


def measure(folder, **options):
    given = {"subject": folder / "drawn", "real": folder / "leaves.png", **options}
    evaluate_samples(Options(**given), CONSOLE, lambda batches, *words: batches)
    return json.loads((folder / "drawn-eval" / "metrics.json").read_text())


def test_samples_are_measured_beside_their_image(folder):
    report = measure(folder, batch_size=2)
    (row,) = report["methods"]
    assert row["method"] == "leaves"
    samples = draw(5)
    of_image = patches(np.asarray(LAYER.apply(MIXED, REAL[None]))[0])
    distances = sifid(of_image, LAYER.apply(MIXED, samples))
    assert row["sifid_squeeze"]["value"] == pytest.approx(distances.mean(), rel=1e-5)
    assert row["sifid_squeeze"]["std"] == pytest.approx(distances.std(), rel=1e-4)
    expected = PixelDiversity.from_batch(samples).compute(REAL)
    assert row["pixel_diversity"] == pytest.approx(expected._asdict())
    found = row["lpips_diversity_squeeze"]
    assert found["value"] > 0
    assert (found["count"], found["over"], found["images"]) == (10, "pairs", 5)
    facts = report["provenance"]
    assert facts["networks"].keys() == {"squeezenet1_1", "lpips_squeeze"}
    assert facts["skipped"][0] == (
        "sifid_inception, sifid_inception_64: the weights of inception are not here; "
        "python -m deepprism_jax.weights get inception"
    )
    assert "leaves.png is 36x44 and the samples are 40x36" in facts["notes"][-1]
    assert (
        "SIFID (squeeze): Tiny, shades, 3 features at every position"
        in (facts["notes"][0])
    )
    written = {path.name for path in (folder / "drawn-eval").iterdir()}
    assert written == {"metrics.json", "metrics.md", "metrics.csv", "eval.png"}
    table = (folder / "drawn-eval" / "metrics.md").read_text()
    assert "* 5 samples of 40x36 in " in table
    assert "numbers in the code" not in table


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("fid",)}, "'fid' does not measure samples of one image; choose"),
        ({"metrics": ("sifid_vgg",)}, "nothing to measure: sifid_vgg: the weights of"),
        ({"splits": 3}, "--splits is of no effect on samples of one image"),
        ({"samples": 3}, "--samples is of no effect on samples of one image"),
        ({"real": Path("nowhere.png")}, r"nowhere\.png"),
        ({"subject": Path("nowhere")}, "no such folder: nowhere"),
    ],
)
def test_what_cannot_be_measured_is_refused(folder, options, message):
    with pytest.raises(PreflightError, match=message):
        measure(folder, **options)
    assert not (folder / "drawn-eval").exists()


def test_small_images_and_single_samples_leave_metrics_out(folder):
    Image.fromarray(REAL[:31]).save(folder / "leaves.png")
    for number in range(1, 5):
        (folder / "drawn" / f"{number:04}.png").unlink()
    with pytest.raises(FailedError, match=r"pixel_diversity left out: .* 2 samples"):
        measure(folder)
    with pytest.raises(PreflightError, match="needs images of at least 32x32, and one"):
        measure(folder, metrics=("sifid_squeeze",))


def test_real_is_for_folders_of_samples_alone(folder):
    (folder / "drawn" / "config.json").write_text("{}")
    with pytest.raises(PreflightError, match="a run has its training image: leave"):
        measure(folder)
    (folder / "drawn" / "config.json").unlink()
    with pytest.raises(PreflightError, match="--seed is of no effect on images beside"):
        program.main(Options(subject=folder / "drawn", seed=3))


def row(name, value, samples=16):
    scores = {
        "sifid_squeeze": Score(value, 1.0, samples, "samples"),
        "parameters_without_time": Score(18_357, None, 0, ""),
    }
    return Row(name, scores, 20_000, None)


def test_the_mean_over_images_comes_first():
    assert with_mean([row("a", 1.0)]) == [row("a", 1.0)]
    lacks = replace(row("c", 0.0), scores={})
    mean, *rows = with_mean([row("a", 1.0), row("b", 4.0), lacks])
    assert rows == [row("a", 1.0), row("b", 4.0), lacks]
    assert mean.method == "mean of 3 images"
    assert mean.scores["sifid_squeeze"] == (2.5, 1.5, 2, "training images", None)
    assert mean.scores["parameters_without_time"] == (18_357, None, 0, "", None)
    assert mean.parameters == 20_000


def test_runs_of_single_images_stand_beside_each_other_without_the_paper(tmp_path):
    for name, values in (("dense", (3.0, 6.0)), ("deepprism", (2.0, 5.0))):
        rows = with_mean([row("x", values[0]), row("y", values[1])])
        facts = {
            "kind": "samples of single images",
            "subject": f"16 samples by {name}",
            "images": 16,
            "image_size": [],
            "deepprism_jax": "0.1",
        }
        write_json(tmp_path / name / "metrics.json", rows, facts)
    table = side_by_side.load([tmp_path / "dense", tmp_path / "deepprism"])
    names = [row.method for row in table.rows]
    assert names[:4] == ["dense", "deepprism", "x (dense)", "x (deepprism)"]
    assert not any("paper" in text for text in (*names, *table.lines))
    marked = {(names[number], name) for number, name in table.best}
    assert ("deepprism", "sifid_squeeze") in marked
    assert {name for name, _ in marked} == {"dense", "deepprism"}
    assert ("dense", "sifid_squeeze") not in marked
    assert "dense: 16 samples by dense; deepprism_jax 0.1" in table.lines


def test_the_picture_takes_samples_of_another_size():
    same = picture({"a": (REAL, REAL[None])})
    other = picture({"a": (REAL, REAL[None]), "b": (REAL, draw(3))})
    large = draw(2, (600, 300))
    assert other.shape[0] > 2 * same.shape[0]
    assert other.shape[1] > same.shape[1]
    assert max(picture({"a": (large[0], large[1:])}).shape) < 600


def test_every_metric_has_a_column():
    assert set(suites.METRICS) <= COLUMNS.keys()
