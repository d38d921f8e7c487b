"""Images drawn from a model of latents: their seeds, classes, known parts and files."""

import numpy as np
import pytest
from exact_denoiser import SCHEDULE, Blobs, Halves
from PIL import Image

from deepprism_jax.evaluation.setup import FailedError
from deepprism_jax.sampling import folder
from deepprism_jax.sampling.latent_drawing import make_latent_drawing
from deepprism_jax.sampling.latent_model import LatentModel
from deepprism_jax.sampling.latent_plan import Abilities
from deepprism_jax.sampling.options import Options
from deepprism_jax.training.preflight import PreflightError


@pytest.fixture(scope="module")
def model():
    can = Abilities(100, (4, 8), 2, 2, ("dark", "light"))
    network = Blobs(channels=3)
    return LatentModel("blobs", 7, network, Halves(), SCHEDULE, "v", 3, can)


def drawn(model, **options):
    drawing = make_latent_drawing(Options(**options), model)
    told = []
    images = np.stack(list(drawing.images(told.append)))
    assert sum(told) == drawing.work
    return drawing, images.astype(int)


def test_images_are_of_their_classes_and_of_any_size(model):
    options = {"steps": 4, "sampler": "ddpm", "guidance": 1.5, "size": (4, 12)}
    drawing, images = drawn(model, count=5, seed=2, batch=1, **options)
    assert images.shape == (5, 4, 12, 3)
    assert drawing.labels == [0, 1, 0, 1, 0]
    assert drawing.rows == ["dark", "light", "dark", "light", "dark"]
    assert (images[::2] < 100).all()
    assert (images[1::2] > 155).all()
    assert len(np.unique(images, axis=0)) == 5
    assert "5 images of 4x12, from noise, 4 steps of ddpm, guid" in drawing.lines[0]
    assert drawing.lines[1] == "classes in turn: dark, light"
    later = make_latent_drawing(Options(seed=3, count=2, **options), model)
    assert later.labels == drawing.labels[1:3]


@pytest.fixture
def given(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (4, 8, 3), np.uint8)).save(tmp_path / "i.png")
    mask = np.zeros((4, 8), np.uint8)
    mask[:2, 1:4] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    Image.fromarray(0 * mask).save(tmp_path / "black.png")
    return tmp_path


def test_what_the_mask_leaves_stays_to_the_last_bit(model, given):
    options = {"input": given / "i.png", "mask": given / "m.png", "steps": 5}
    drawing, images = drawn(model, count=2, classes=("light",), repeats=2, **options)
    image = drawing.pictures["input.png"]
    free = drawing.pictures["mask.png"][..., 0] > 0
    assert (images[:, ~free] == image[~free]).all()
    assert (images[:, free] > 155).all()
    assert drawing.facts["mode"] == "inpaint"
    with pytest.raises(PreflightError, match="has no white, its brightest pixel is 0"):
        make_latent_drawing(
            Options(input=given / "i.png", mask=given / "black.png"), model
        )


def test_little_noise_leaves_the_input(model, given):
    options = {"input": given / "i.png", "strength": 0.1, "steps": 10}
    drawing, images = drawn(model, count=2, **options)
    means = drawing.pictures["input.png"].reshape(2, 2, 4, 2, 3).mean((1, 3))
    assert np.abs(images[:, ::2, ::2] - means).mean() < 30
    assert "the last 1 of 10 steps of ddim" in drawing.lines[0]


def test_what_is_no_number_is_no_image(model):
    broken = Blobs(channels=3)
    broken.means[...] = np.full(3, np.nan, np.float32)
    broken = LatentModel("b", 9, broken, None, SCHEDULE, "v", 3, model.can)
    with pytest.raises(FailedError, match="b at step 9 draws no numbers; take an ear"):
        drawn(broken, count=1, steps=1)


def test_a_grid_has_a_row_a_class_and_arrays_hold_all(tmp_path):
    images = [np.full((6, 5, 3), 10 * n, np.uint8) for n in range(5)]
    folder.write_grid(tmp_path, images, ["b", "a", "b", "a", "b"])
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    assert grid.shape[0] == 2 + 2 * (6 + 2)
    first, second = (grid[top : top + 6, -21:] for top in (2, 10))
    assert [first[0, x, 0] for x in (0, 7, 14)] == [0, 20, 40]
    assert [second[0, x, 0] for x in (0, 7, 14)] == [10, 30, 255]
    folder.save_arrays(tmp_path, images, np.arange(5), [1, 0, 1, 0, 1])
    with np.load(tmp_path / "samples.npz") as found:
        np.testing.assert_array_equal(found["images"], images)
        assert found["labels"].tolist() == [1, 0, 1, 0, 1]
        assert found["seeds"].tolist() == [0, 1, 2, 3, 4]
