"""`sample.py` on a run of latent diffusion, and what of such a run it refuses."""

import json
import shutil

import numpy as np
import pytest
from entry_points import load_main, random_model, refused_in_one_line
from flax import nnx
from PIL import Image

from deepprism_jax.layers.functional import values_of
from deepprism_jax.models import AutoencoderKL
from deepprism_jax.models.unet import UNet
from deepprism_jax.training.ldm.config import (
    AutoencoderConfig,
    DenoisingConfig,
    LatentDataConfig,
    LDMConfig,
    UNetConfig,
)
from deepprism_jax.training.workdir import claim
from deepprism_jax.weights.items import save_items
from deepprism_jax.weights.pretrained import describe, save_pretrained

# Convolutions are dense because those compile fastest.
SMALL = {"width": 4, "conv": "dense", "blocks": 1, "norm_groups": 2}
OPTIONS = {**SMALL, "multipliers": (1,), "attention": (), "classes": 2}
CONFIG = LDMConfig(
    model=UNetConfig(**OPTIONS),
    autoencoder=AutoencoderConfig(path="elsewhere", factor=2),
    data=LatentDataConfig(image_size=(8, 8)),
    diffusion=DenoisingConfig(times=20),
)

main = load_main("sample")


def autoencoder(z_channels=3):
    options = {**SMALL, "blocks": 0, "downsamples": 1, "attention": False}
    make = lambda: AutoencoderKL(**options, z_channels=z_channels, rngs=nnx.Rngs(0))  # noqa: E731
    return random_model(make, 1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs whole, without their autoencoder, and with another's."""
    path = tmp_path_factory.mktemp("runs")
    network = random_model(lambda: UNet(**OPTIONS, rngs=nnx.Rngs(0)), 0)
    with claim(path / "run", CONFIG, resume=False):
        (path / "run" / "checkpoints").mkdir()
        items = {"ema": values_of(network), "config": {"model": describe(network)}}
        save_items(path / "run" / "checkpoints" / "10", items)
        (path / "run" / "classes.json").write_text('["cat", "dog"]')
    for name in ("lost", "swapped", "renamed"):
        shutil.copytree(path / "run", path / name)
    for name in ("run", "renamed"):
        save_pretrained(autoencoder(), path / name / "autoencoder")
    save_pretrained(autoencoder(z_channels=4), path / "swapped" / "autoencoder")
    (path / "renamed" / "classes.json").write_text('["cat", "dog", "eel"]')
    return path


def test_a_run_draws_images_of_its_classes(runs, tmp_path, capsys):
    out = tmp_path / "out"
    asked = [str(runs / "run"), "--output", str(out), "--classes", "dog", "0"]
    assert main([*asked, "--count", "3", "--seed", "5", "--steps", "2", "--npz"]) == 0
    printed = capsys.readouterr().out
    assert "run, step 10: 3 images of 8x8, from noise, 2 steps of ddim" in printed
    assert "classes in turn: dog, cat" in printed
    names = sorted(path.name for path in out.iterdir())
    images = ["0005.png", "0006.png", "0007.png"]
    assert names == [*images, "grid.png", "samples.json", "samples.npz"]
    with np.load(out / "samples.npz") as found:
        assert found["labels"].tolist() == [0, 1, 0]
        assert found["seeds"].tolist() == [5, 6, 7]
        for name, pixels in zip(images, found["images"], strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(out / name)), pixels)
        assert pixels.shape == (8, 8, 3)
    record = json.loads((out / "samples.json").read_text())
    assert (record["latent"], record["classes"]) == ([4, 4, 3], ["dog", "cat"])
    assert (record["sampler"], record["steps"]) == ("ddim", 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{lost}"], "the run has no autoencoder/, which makes images of its latents"),
        (["{swapped}"], "has z_channels=4, and the U-Net of the run works on 3: copy"),
        (["{renamed}"], "classes.json has 3 names for 2 classes of the U-Net"),
        (["{run}", "--classes", "2"], "--classes 2: the model knows 0 ... 1, cat, dog"),
        (["{run}", "--image", "x"], "--image is for single-image models, and this is"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments, message, runs, capsys):
    places = {path.name: path for path in runs.iterdir()}
    argv = [text.format(**places) for text in arguments]
    assert message in refused_in_one_line(main, argv, capsys)
    assert not (runs / "run" / "drawn").exists()
