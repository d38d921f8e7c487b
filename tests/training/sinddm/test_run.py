"""The program on a single image: what a run leaves behind, and how it goes on."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from deepprism_jax.layers.dense import Conv
from deepprism_jax.training import program
from deepprism_jax.training.config import TrainConfig
from deepprism_jax.training.preflight import PreflightError
from deepprism_jax.training.sinddm import trainer as trainer_module
from deepprism_jax.training.sinddm.config import (
    DiffusionConfig,
    PictureConfig,
    SinDDMConfig,
)
from deepprism_jax.training.sinddm.system import keep_inputs
from deepprism_jax.training.systems import make_trainer, open_data
from deepprism_jax.training.workdir import read_config
from deepprism_jax.weights.pretrained import PretrainedMixin


class Tiny(PretrainedMixin, nnx.Module):
    """A denoiser that is quick to compile."""

    def __init__(self, *, rngs):
        self.options = nnx.static({})
        self.conv = Conv(3, 3, rngs=rngs)

    def __call__(self, x, t, scale):
        return self.conv(x) * (1 + scale[:, None, None, None])


@pytest.fixture(scope="module", autouse=True)
def quickly():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            trainer_module, "make_denoiser", lambda config, rngs: Tiny(rngs=rngs)
        )
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for name in "abcd":
        pixels = random.integers(0, 256, (8, 10, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return SinDDMConfig(
        data=PictureConfig(path=str(folder)),
        diffusion=DiffusionConfig(coarsest=6, times=3),
        train=TrainConfig(
            steps=4, batch_size=1, eval_images=1, save_every=2, keep=2, log_every=2
        ),
    )


@pytest.fixture(scope="module")
def resumed(config, tmp_path_factory):
    """A run of four steps that was stopped after two."""
    workdir = tmp_path_factory.mktemp("resumed") / "run"
    short = dataclasses.replace(config.train, steps=2)
    assert program.train(dataclasses.replace(config, train=short), workdir) == 0
    assert program.train(config, workdir, resume=True) == 0
    return workdir


def test_a_run_keeps_its_images_and_exports_every_model(resumed, config):
    assert read_config(resumed) == config
    assert json.loads((resumed / "config.json").read_text())["system"] == "sinddm"
    assert [p.stem for p in sorted((resumed / "images").iterdir())] == list("abcd")
    for name in "abcd":
        model = Tiny.from_pretrained(resumed, model=name)
        exported = Tiny.from_pretrained(resumed / "model" / name)
        np.testing.assert_array_equal(model.conv.kernel[...], exported.conv.kernel[...])
    with pytest.raises(ValueError, match="4 models; give model=, one of a, b, c, d"):
        Tiny.from_pretrained(resumed)
    assert [p.name for p in (resumed / "samples").iterdir()]


def test_a_run_that_goes_on_is_the_run_that_was_not_stopped(resumed, config):
    trainer, data = make_trainer(config), open_data(config)
    state = trainer.init()
    for _ in range(4):
        state, _ = trainer.step(state, next(data.train))
    models = trainer.models(trainer.inference_values(state))
    for name in "abcd":
        found = Tiny.from_pretrained(resumed, model=name)
        np.testing.assert_array_equal(
            found.conv.kernel[...], models[name].conv.kernel[...]
        )


def test_another_image_is_not_gone_on_with(config, resumed, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(resumed, workdir)
    image = workdir / "images" / "b.png"
    Image.fromarray(255 - np.asarray(Image.open(image))).save(image)
    longer = dataclasses.replace(config.train, steps=6)
    with pytest.raises(PreflightError, match=r"b\.png is not the image that data.path"):
        program.train(dataclasses.replace(config, train=longer), workdir, resume=True)
    image.write_bytes(b"")
    with pytest.raises(PreflightError, match=r"b\.png is damaged"):
        program.train(dataclasses.replace(config, train=longer), workdir, resume=True)
    image.unlink()
    with pytest.raises(PreflightError, match="holds other images"):
        program.train(dataclasses.replace(config, train=longer), workdir, resume=True)


def test_what_broke_off_as_it_began_is_begun_again(config, tmp_path):
    data = open_data(config)
    keep_inputs(tmp_path, data)
    (tmp_path / "images" / "c.png").unlink()
    (tmp_path / "images" / ".DS_Store").touch()
    keep_inputs(tmp_path, data)
    assert [p.stem for p in sorted((tmp_path / "images").glob("*.png"))] == list("abcd")
