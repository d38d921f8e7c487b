"""Runs of models of one image: what is drawn of them, and what is said of it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from rich.console import Console

from deepprism_jax.analysis.parameters import count_without_time
from deepprism_jax.diffusion.multiscale import multi_scale
from deepprism_jax.diffusion.pyramid import make_pyramid
from deepprism_jax.diffusion.schedules import cosine
from deepprism_jax.evaluation.options import Options
from deepprism_jax.evaluation.pretrained import Pretrained
from deepprism_jax.evaluation.setup import FailedError
from deepprism_jax.evaluation.single_image import run as of_runs
from deepprism_jax.evaluation.single_image.drawing import Drawer
from deepprism_jax.evaluation.single_image.run import evaluate_run
from deepprism_jax.evaluation.single_image.trained import (
    Trained,
    TrainedRun,
    digest_of,
    of_package,
    open_run,
)
from deepprism_jax.layers.functional import Functional, values_of
from deepprism_jax.models.sinddm import SinDDM
from deepprism_jax.training.preflight import PreflightError
from deepprism_jax.training.sharding import make_mesh
from deepprism_jax.training.sinddm.config import PictureConfig, SinDDMConfig
from deepprism_jax.training.workdir import claim
from deepprism_jax.weights.items import save_items

CONSOLE = Console(quiet=True)
SIZES = ((12, 11),)
MESH = make_mesh(jax.devices()[:2])


class Share(nnx.Module):
    """Takes a share of each pixel for v; compiles at once."""

    options = {"width": 2}  # noqa: RUF012

    def __init__(self, share=0.0):
        self.share = nnx.Param(jnp.float32(share))
        self.embedding = nnx.Dict(scale=nnx.Param(jnp.zeros(5)))

    def __call__(self, x, t, scale):
        return self.share[...] * x


def trained(name, share=-0.4):
    rng = np.random.default_rng(len(name))
    image = rng.integers(0, 256, (*SIZES[-1], 3), dtype=np.uint8)
    process = multi_scale(make_pyramid(image, SIZES), cosine(1), reading="rms")
    return Trained(name, image, Share(share), process)


MODELS = {name: trained(name) for name in ("a", "bb")}
# One for all tests, that they compile once.
DRAWER = Drawer(Share(), "v", MODELS["a"].process, MESH)


@pytest.fixture(autouse=True)
def drawer(monkeypatch):
    monkeypatch.setattr(of_runs, "Drawer", lambda *args: DRAWER)


def test_samples_are_those_of_their_seeds_in_any_batch_and_of_any_network():
    model = MODELS["a"]

    def draw(network, **options):
        batches = list(DRAWER.draw(network, model.process, 3, batch=3, **options))
        pixels, masks = zip(*batches, strict=True)
        return np.concatenate(pixels), np.concatenate(masks)

    pixels, mask = draw(model.network, first=0, count=6)
    assert mask.tolist() == [True] * 6 + [False] * 2
    assert len(np.unique(pixels, axis=0)) == 8
    later, mask = draw(model.network, first=3, count=3)
    assert mask.tolist() == [True] * 3 + [False]
    np.testing.assert_array_equal(later, pixels[3:7])
    # One step makes alpha x - sigma v of noise x, and v is a share of x.
    (alpha,), (sigma,) = model.process.schedule
    others, _ = draw(Share(-0.2), first=0, count=6)
    drawn, expected = others / 127.5 - 1, pixels / 127.5 - 1
    expected *= (alpha + 0.2 * sigma) / (alpha + 0.4 * sigma)
    whole = (pixels > 0) & (pixels < 255)
    assert whole.mean() > 0.9
    np.testing.assert_allclose(drawn[whole], expected[whole], atol=0.01)
    _, mask = draw(Share(float("nan")), first=0, count=4)
    assert not mask.any()


def run(path, models=MODELS, **options):
    images = {name: model.image for name, model in models.items()}
    found = TrainedRun(
        path, SinDDMConfig(), path / "checkpoints" / "7", path, 7, images
    )
    object.__setattr__(found, "load", models.__getitem__)  # nothing lies on the disk
    given = Options(
        metrics=("pixel_diversity",), **{"samples": 4, "batch_size": 4, **options}
    )
    evaluate_run(found, given, CONSOLE, lambda names, *words: names)
    return json.loads((path / "metrics.json").read_text())


def test_a_run_has_the_mean_and_a_row_a_model(tmp_path):
    report = run(tmp_path)
    mean, *rows = report["methods"]
    assert [row["method"] for row in rows] == ["a", "bb"]
    values = [row["pixel_diversity"]["value"] for row in rows]
    assert mean["method"] == "mean of 2 images"
    assert mean["pixel_diversity"]["value"] == pytest.approx(np.mean(values))
    assert (mean["parameters"], rows[0]["parameters"]) == (6, 6)
    assert rows[0]["parameters_without_time"]["value"] == 1
    facts = report["provenance"]
    assert (facts["step"], facts["images"], facts["image_size"]) == (7, 4, [12, 11])
    assert facts["subject"].startswith("4 samples of 12x11 each of 2 models, SinDDM")
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"metrics.json", "metrics.md", "metrics.csv", "eval.png"}


def test_very_many_models_are_not_all_named_in_a_line(tmp_path):
    models = {
        f"image {n}": trained("many")._replace(name=f"image {n}") for n in "1234567"
    }
    report = run(tmp_path, models)
    assert report["provenance"]["name"].startswith("7 images ")
    text = (tmp_path / "metrics.md").read_text()
    assert "pixel diversity of image 1 and 6 others: over 4 samples" in text


def test_models_that_draw_no_numbers_are_told_and_the_others_stand(tmp_path):
    models = {**MODELS, "broken": trained("broken", float("nan"))}
    report = run(tmp_path, models)
    assert [row["method"] for row in report["methods"][1:]] == ["a", "bb"]
    assert "4 of 4 samples of broken have NaN" in "; ".join(
        report["provenance"]["notes"]
    )
    with pytest.raises(FailedError, match="4 of 4 samples of broken have NaN"):
        run(tmp_path / "alone", {"broken": models["broken"]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "--samples 0 must be at least 1"),
        ({"seed": -1}, "--seed -1 must be at least 0"),
        ({"seed": 2**31 - 3}, "--seed 2147483645 must stay below"),
        ({"samples": 1}, "--metrics pixel_diversity is of how samples differ, and"),
        ({"source": "cifar10"}, "--source is of no effect on a run of models of one"),
    ],
)
def test_options_that_no_run_takes_are_refused(tmp_path, options, message):
    with pytest.raises(PreflightError, match=message):
        run(tmp_path, **options)


def test_layers_of_time_and_scale_are_told_apart():
    network = nnx.eval_shape(lambda: SinDDM(rngs=nnx.Rngs(0)))
    total, without = count_without_time(Functional(network).shapes)
    assert without == 18_357  # the paper's
    assert total > without


def test_what_is_no_run_of_single_images_is_left_to_others_or_refused(tmp_path):
    assert open_run(tmp_path / "nowhere") is None
    with claim(tmp_path / "run", SinDDMConfig(), resume=False):
        pass
    with pytest.raises(PreflightError, match="has no checkpoint yet"):
        open_run(tmp_path / "run")
    (tmp_path / "export").mkdir()
    description = {"class": "SinDDM", "options": {}, "deepprism_jax": "0.1"}
    (tmp_path / "export" / "config.json").write_text(json.dumps(description))
    (tmp_path / "export" / "model.safetensors").touch()
    with pytest.raises(PreflightError, match="does not hold that image: give the work"):
        open_run(tmp_path / "export")


def test_an_image_that_a_model_of_the_package_has_not_learnt_is_told(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    Image.fromarray(image[::-1]).save(tmp_path / "other.png")
    config = SinDDMConfig(data=PictureConfig(path="image.png"))
    known = ("image", image.shape)
    model = Pretrained("m", tmp_path, "sinddm", config, 1, known, digest_of(image))
    assert of_package(model, tmp_path / "image.png").notes == ()
    (note,) = of_package(model, tmp_path / "other.png").notes
    assert "other.png: its pixels are not those that m has learnt" in note
    for real, message in (
        (tmp_path, "is a folder: give the image image"),
        (tmp_path / "no.png", "is not there: give the image image"),
        (None, "give image as --real IMAGE"),
    ):
        with pytest.raises(PreflightError, match=message):
            of_package(model, real)


def test_a_run_of_several_models_gives_each_its_own(tmp_path):
    config = SinDDMConfig()
    rng = np.random.default_rng(0)
    options = {"conv": "dense", "width": 2, "embedding": 2}
    network = Functional(nnx.eval_shape(lambda: SinDDM(**options, rngs=nnx.Rngs(0))))
    values = {
        name: rng.normal(size=(2, *x.shape)).astype(np.float32)
        for name, x in network.shapes.items()
    }
    description = {"class": "SinDDM", "options": options, "models": ["a", "b"]}
    with claim(tmp_path / "run", config, resume=False):
        (tmp_path / "run" / "checkpoints").mkdir()
        items = {"ema": values, "config": {"model": description}}
        save_items(tmp_path / "run" / "checkpoints" / "8", items)
    with pytest.raises(PreflightError, match="has no training image in it"):
        open_run(tmp_path / "run")
    pixels = {name: rng.integers(0, 256, (64, 60, 3), dtype=np.uint8) for name in "ab"}
    (tmp_path / "run" / "images").mkdir()
    for name, image in pixels.items():
        Image.fromarray(image).save(tmp_path / "run" / "images" / f"{name}.png")
    found = open_run(tmp_path / "run")
    assert found is not None
    assert (found.step, found.results) == (8, tmp_path / "run")
    assert list(found.images) == ["a", "b"]
    second = found.load("b")
    np.testing.assert_array_equal(second.image, pixels["b"])
    assert second.process.sizes[-1] == (64, 60)
    for name, x in values_of(second.network).items():
        np.testing.assert_array_equal(x, values[name][1])
    chosen = open_run(tmp_path / "run" / "checkpoints" / "8")
    assert chosen is not None
    assert (chosen.step, chosen.results) == (8, tmp_path / "run" / "eval-8")
