"""The program on latents: what a run leaves behind, how it goes on, what it refuses."""

import dataclasses
import json
from functools import partial

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from deepprism_jax.layers.dense import Conv
from deepprism_jax.models import AutoencoderKL
from deepprism_jax.training import program
from deepprism_jax.training.config import TrainConfig
from deepprism_jax.training.ldm import evaluator
from deepprism_jax.training.ldm import trainer as trainer_module
from deepprism_jax.training.ldm.config import (
    AutoencoderConfig,
    DenoisingConfig,
    LatentDataConfig,
    LDMConfig,
    UNetConfig,
)
from deepprism_jax.training.ldm.system import kept_autoencoder, kept_classes
from deepprism_jax.training.ldm.trainer import LDMTrainer
from deepprism_jax.training.preflight import PreflightError
from deepprism_jax.training.sharding import make_mesh
from deepprism_jax.training.systems import make_trainer, open_data
from deepprism_jax.weights.pretrained import PretrainedMixin


class Tiny(PretrainedMixin, nnx.Module):
    """A denoiser that is quick to compile."""

    def __init__(self, *, classes=2, channels=2, rngs):
        assert (classes, channels) == (2, 2)
        self.options = nnx.static({"classes": 2, "channels": 2})
        self.conv = Conv(2, 2, rngs=rngs)
        self.labels = nnx.Param(jax.random.normal(rngs.params(), (3, 2)))
        self.latent_mean = nnx.Variable(np.zeros(2, np.float32))
        self.latent_std = nnx.Variable(np.ones(2, np.float32))

    factor = 1

    def check_latent(self, shape):
        pass

    def normalize(self, z):
        return (z - self.latent_mean[...]) / self.latent_std[...]

    def denormalize(self, x):
        return x * self.latent_std[...] + self.latent_mean[...]

    def __call__(self, x, t, labels, *, dropout_keys=None):
        del dropout_keys
        rows = self.labels[...][labels][:, None, None]
        return (self.conv(x) + rows) * (1 + t[:, None, None, None] / 10)


@pytest.fixture(scope="module", autouse=True)
def quickly():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "make_unet", lambda config, rngs: Tiny(rngs=rngs))
        patch.setattr(evaluator, "STEPS", 2)
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for n in range(4):
                pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{n}.png")
    autoencoder = AutoencoderKL(
        width=4,
        norm_groups=2,
        downsamples=1,
        blocks=0,
        z_channels=2,
        attention=False,
        conv="dense",
        rngs=nnx.Rngs(0),
    )
    autoencoder.save_pretrained(folder / "autoencoder")
    return LDMConfig(
        model=UNetConfig(width=4, norm_groups=2, classes=2, fields=1),
        autoencoder=AutoencoderConfig(
            path=str(folder / "autoencoder"), z_channels=2, factor=2
        ),
        data=LatentDataConfig(
            source="folder",
            path=str(folder),
            image_size=(8, 8),
            encode_batch=8,
            latents=str(folder / "latents"),
        ),
        diffusion=DenoisingConfig(times=10, min_snr=5.0),
        train=TrainConfig(steps=4, batch_size=4, save_every=2, log_every=2),
    )


def steps(config, count):
    train = dataclasses.replace(config.train, steps=count)
    return dataclasses.replace(config, train=train)


@pytest.fixture(scope="module")
def resumed(config, tmp_path_factory):
    """A run of four steps that was stopped after two."""
    workdir = tmp_path_factory.mktemp("resumed") / "run"
    assert program.train(steps(config, 2), workdir) == 0
    assert program.train(config, workdir, resume=True) == 0
    return workdir


def test_a_run_holds_all_that_draws_from_it(resumed, config):
    assert kept_classes(resumed) == ("cat", "dog")
    images = jax.numpy.zeros((1, 8, 8, 3))
    there = AutoencoderKL.from_pretrained(config.autoencoder.path)
    np.testing.assert_array_equal(
        kept_autoencoder(resumed).encode(images).mean, there.encode(images).mean
    )
    model = Tiny.from_pretrained(resumed)
    mean, std = open_data(config).train.latents.cache().moments()
    np.testing.assert_array_equal(model.latent_mean[...], mean)
    np.testing.assert_array_equal(model.latent_std[...], std)
    exported = Tiny.from_pretrained(resumed / "model")
    np.testing.assert_array_equal(model.conv.kernel[...], exported.conv.kernel[...])
    with Image.open(resumed / "samples" / "00000004.png") as picture:
        assert picture.mode == "RGB"
    lines = (resumed / "metrics.jsonl").read_text().splitlines()
    assert sum("eval/loss_3" in json.loads(line) for line in lines) == 3


def test_a_run_that_goes_on_is_the_run_that_was_not_stopped(resumed, config):
    trainer, data = make_trainer(config), open_data(config)
    trainer.moments = data.train.latents.cache().moments()
    state = trainer.init()
    for _ in range(4):
        state, _ = trainer.step(state, trainer.shard_pieces(next(data.train)))
    expected = trainer.inference_values(state)
    found = Tiny.from_pretrained(resumed)
    np.testing.assert_array_equal(found.conv.kernel[...], expected["conv.kernel"])


def test_devices_share_a_batch_without_a_change(config):
    random = np.random.default_rng(1)
    batch = {
        "mean": random.normal(size=(8, 4, 4, 2)).astype(np.float16),
        "std": random.uniform(size=(8, 4, 4, 2)).astype(np.float16),
        "label": np.arange(8, dtype=np.int32) % 2,
    }
    train = dataclasses.replace(config.train, batch_size=8)
    config = dataclasses.replace(config, train=train)
    found = []
    for devices in (1, 4):
        mesh = make_mesh(jax.devices()[:devices])
        trainer = LDMTrainer(config, mesh, certain=False)
        state = trainer.init()
        grads, *_, metrics = jax.jit(trainer.gradients)(
            state, trainer.shard_batch(batch), None
        )
        found.append(jax.device_get((grads, metrics)))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-6, atol=1e-7), *found)


@pytest.mark.parametrize(
    ("group", "changes", "message"),
    [
        ("model", {"classes": 3}, r"model\.classes=3, but .* has 2 classes: set"),
        (
            "autoencoder",
            {"z_channels": 3},
            r"autoencoder\.z_channels=3, but the autoencoder in .* has 2: set",
        ),
        ("autoencoder", {"factor": 1}, r"autoencoder\.factor=1, but .* has 2: set"),
        ("autoencoder", {"path": "nowhere"}, "no directory nowhere here.*train one"),
        ("autoencoder", {"path": ""}, r"data\.latents=.* without an autoencoder"),
        ("data", {"image_size": (8, 6)}, r"multiples of 8, .* the nearest is \(8, 8\)"),
        ("model", {"attention": (8,)}, r"no level 8 times smaller; choose among \[1,"),
        ("diffusion", {"class_dropout": 1.0}, r"must lie in \[0, 1\)"),
        (
            "diffusion",
            {"target": "eps"},
            "schedule=cosine: .*; set --diffusion.target v",
        ),
        ("mesh", {"channel": 2}, "U-Nets are not cut along channels"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    config, tmp_path, group, changes, message
):
    wrong = dataclasses.replace(
        config, **{group: dataclasses.replace(getattr(config, group), **changes)}
    )
    with pytest.raises(PreflightError, match=message):
        program.train(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_latents_of_another_autoencoder_are_refused(config, tmp_path):
    other = AutoencoderKL.from_pretrained(config.autoencoder.path)
    other.quant_conv.bias[...] = other.quant_conv.bias[...] + 1
    other.save_pretrained(tmp_path / "other")
    autoencoder = dataclasses.replace(config.autoencoder, path=str(tmp_path / "other"))
    wrong = dataclasses.replace(config, autoencoder=autoencoder)
    with pytest.raises(PreflightError, match="holds latents of other autoencoder"):
        program.train(wrong, tmp_path / "run")


@pytest.mark.parametrize(("asked", "encoded"), [(1, 4), (6, 8), (8, 8)])
def test_every_device_encodes_as_many_images(config, asked, encoded):
    data = dataclasses.replace(config.data, encode_batch=asked)
    held_out = open_data(dataclasses.replace(config, data=data)).held_out
    assert next(iter(held_out.latents.images))["image"].shape[0] == encoded


def test_pixels_are_diffused_without_an_autoencoder(config):
    pixels = dataclasses.replace(config, autoencoder=AutoencoderConfig())
    batch = next(open_data(pixels).train)
    trainer = LDMTrainer(pixels, make_mesh(), certain=True)
    assert {k: (x.shape, x.dtype) for k, x in batch.items()} == {
        k: (x.shape, x.dtype) for k, x in trainer.batch_shapes().items()
    }
    assert set(batch["label"]) <= {0, 1}
