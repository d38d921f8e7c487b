"""Runs of latent diffusion: what is drawn of them, refused, and said of it."""

import dataclasses
import json

import corner
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

from deepprism_jax.diffusion.schedules import cosine
from deepprism_jax.evaluation.latent import run as of_runs
from deepprism_jax.evaluation.latent.drawing import Samples
from deepprism_jax.evaluation.latent.run import choose_way, evaluate_latents
from deepprism_jax.evaluation.latent.trained import Trained, open_run, parameters
from deepprism_jax.evaluation.latent.ways import Way
from deepprism_jax.evaluation.options import Options
from deepprism_jax.evaluation.runs import FoundRun
from deepprism_jax.evaluation.setup import FailedError
from deepprism_jax.models.unet import UNet
from deepprism_jax.training.ldm.config import LatentDataConfig, LDMConfig
from deepprism_jax.training.preflight import PreflightError
from deepprism_jax.training.sharding import make_mesh
from deepprism_jax.training.workdir import claim

CONSOLE = Console(quiet=True)
MESH = make_mesh(jax.devices()[:2])
UNET = {"width": 8, "norm_groups": 4, "blocks": 1, "time_conv": "prism"}


class Share(nnx.Module):
    """Predicts a share of each pixel, and more of it for later classes."""

    def __init__(self, share=-0.4, classes=3):
        self.options = nnx.static(UNET | {"classes": classes, "channels": 3})
        self.share = nnx.Param(jnp.float32(share))

    def normalize(self, z):
        return z

    def denormalize(self, x):
        return x

    def __call__(self, x, t, labels=None, *, dropout_keys=None):
        extra = 0.0 if labels is None else labels[:, None, None, None] / 20
        return (self.share[...] - extra) * x


def model(size=(16, 16), **options):
    return Trained(Share(**options), None, cosine(10), "v", size)


def draw(first, count, batch=4, **options):
    way = Way("ddim", 2, 0.0, 1.0)
    samples = Samples(model((4, 6), **options), way, MESH, first, count, batch)
    batches = list(samples)
    assert len(batches) == len(samples)
    names = ("image", "mask", "index")
    return samples, *(np.concatenate([b[n] for b in batches]) for n in names)


def test_samples_are_those_of_their_seeds_and_classes_take_turns(monkeypatch):
    monkeypatch.setattr("deepprism_jax.evaluation.latent.drawing.POSITIONS_AT_ONCE", 48)
    samples, pixels, mask, index = draw(3, 6)
    assert samples.together == 4
    assert mask.tolist() == [True] * 6 + [False] * 2
    np.testing.assert_array_equal(index, np.arange(8))
    assert samples.compiled
    assert samples.seconds > 0
    np.testing.assert_array_equal(samples.labels(np.array([3, 4, 5, 6])), [0, 1, 2, 0])
    _, later, *_ = draw(5, 2)
    np.testing.assert_array_equal(later[:2], pixels[2:4])
    with pytest.raises(ValueError, match="draws no numbers"):
        draw(0, 4, share=float("nan"))


@pytest.mark.parametrize(
    ("options", "classes", "says"),
    [
        ({"steps": 0}, 3, r"--steps 0 must lie in 1 ... 10"),
        ({"steps": 11}, 3, r"--steps 11 must lie in 1 ... 10"),
        ({"guidance": 2.0}, 0, "--guidance 2 needs classes"),
        ({"guidance": -1.0}, 3, "--guidance -1 must be a number from 0 up"),
        ({"eta": 1.5}, 3, r"--eta 1.5 must lie in 0 ... 1"),
        ({"eta": 0.5, "sampler": "heun"}, 3, "--eta is for --sampler ddim"),
    ],
)
def test_ways_that_no_model_can_go_are_refused(options, classes, says):
    with pytest.raises(PreflightError, match=says):
        choose_way(Options(**options), model(classes=classes))


def test_guidance_needs_a_model_that_was_trained_without_labels_too():
    one = dataclasses.replace(model(), guidable=False)
    assert choose_way(Options(), one).guidance == 1.0
    with pytest.raises(PreflightError, match=r"class-dropout above 0: leave it out"):
        choose_way(Options(guidance=2.0), one)


def test_steps_left_open_are_those_of_the_sampler_or_all_times():
    assert choose_way(Options(), model()) == Way("ddim", 10, 0.0, 1.0)
    many = model()
    many = Trained(many.network, None, cosine(1000), "v", many.size)
    assert choose_way(Options(sampler="dpmpp_2m"), many).steps == 25


@pytest.fixture
def inception(monkeypatch, tmp_path):
    """The store holds a network called `inception` that looks at some pixels."""
    corner.be_inception(monkeypatch, tmp_path)


def test_a_run_stands_beside_its_data(inception, monkeypatch, tmp_path):
    monkeypatch.setattr(of_runs, "load", lambda run: model())
    monkeypatch.setattr(of_runs, "make_mesh", lambda: MESH)
    config = LDMConfig(data=LatentDataConfig(source="photos", image_size=(16, 16)))
    run = FoundRun(
        tmp_path / "run", config, tmp_path / "checkpoints" / "7", tmp_path, 7
    )
    options = Options(samples=24, steps=2, limit=22, kid_subset=8, splits=2)
    evaluate_latents(run, options, CONSOLE, lambda batches, *words: batches)
    report = json.loads((tmp_path / "metrics.json").read_text())
    samples, dense, images = report["methods"]
    assert samples["kid"]["count"] > 0
    assert samples["fid"]["value"] > 0
    own = dict(model().network.options)
    total, without = parameters(own)
    assert samples["parameters"] == total
    assert samples["parameters_without_time"]["value"] == without < total
    assert dense["method"] == "dense, not trained"
    assert dense["parameters"] > 5 * total
    assert images["method"] == "the images"
    facts = report["provenance"]
    assert (facts["images"], facts["real_images"], facts["step"]) == (24, 22, 7)
    assert (facts["sampler"], facts["steps"]) == ("ddim", 2)
    assert facts["seconds_an_image"] > 0
    assert "images/s" in facts["notes"][0]
    assert facts["subject"].startswith(
        "24 samples of 16x16, UNet, checkpoint 7, 2 steps of ddim, 3 classes in turn"
    )
    assert (tmp_path / "eval.png").is_file()
    monkeypatch.setattr(of_runs, "load", lambda run: model(share=float("nan")))
    with pytest.raises(FailedError, match="draws no numbers"):
        evaluate_latents(run, options, CONSOLE, lambda batches, *words: batches)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"samples": 0}, "--samples 0 must be at least 1"),
        ({"seed": -1}, "--seed -1 must be at least 0"),
        ({"extremes": 3}, "--extremes is of no effect on a run of latent diffusion"),
    ],
)
def test_options_that_no_run_of_latents_takes_are_refused(tmp_path, options, says):
    run = FoundRun(tmp_path, LDMConfig(), tmp_path / "checkpoints" / "7", tmp_path, 7)
    with pytest.raises(PreflightError, match=says):
        evaluate_latents(run, Options(**options), CONSOLE, lambda *words: words[0])


def test_what_is_no_run_of_latents_is_left_to_others_or_refused(tmp_path):
    assert open_run(tmp_path / "nowhere") is None
    with claim(tmp_path / "run", LDMConfig(), resume=False):
        pass
    with pytest.raises(PreflightError, match="has no checkpoint yet"):
        open_run(tmp_path / "run")
    (tmp_path / "export").mkdir()
    description = {"class": UNet.__name__, "options": {}, "deepprism_jax": "0.1"}
    (tmp_path / "export" / "config.json").write_text(json.dumps(description))
    (tmp_path / "export" / "model.safetensors").touch()
    with pytest.raises(PreflightError, match="neither the autoencoder nor the noise"):
        open_run(tmp_path / "export")
