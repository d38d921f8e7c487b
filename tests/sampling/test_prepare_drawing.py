"""What each mode makes of the images that it is given, drawn by a made-up model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_model import Smooth, make_model
from PIL import Image

from deepprism_jax.sampling.options import Options
from deepprism_jax.sampling.pictures import conversion
from deepprism_jax.sampling.prepare import make_drawing
from deepprism_jax.training.preflight import PreflightError

SIZES = ((36, 40), (50, 56))


@pytest.fixture(scope="module")
def model():
    return make_model(Smooth(), SIZES, times=4)


@pytest.fixture
def photo(tmp_path):
    """An image that is dark above and bright below."""
    pixels = np.full((50, 56, 3), 40, np.uint8)
    pixels[25:] = 200
    pixels[..., 2] += np.arange(56, dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def images_of(drawing):
    return np.stack(list(drawing.images(lambda done: None)))


def test_what_is_outside_of_the_mask_stays_to_the_last_bit(model, photo, tmp_path):
    mask = np.zeros((50, 56), np.uint8)
    mask[:3, :3] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    options = Options(count=1, input=photo, mask=tmp_path / "mask.png", strength=1.0)
    drawing = make_drawing(options, model)
    (drawn,) = images_of(drawing)
    given = np.asarray(Image.open(photo))
    changed = (drawn != given).any(-1)
    assert changed[:3, :3].mean() > 0.5
    # Widened by 7 px, and feathered by a Gaussian of 5 px that ends at 20.
    reach = 3 + 7 + 20
    assert not changed[reach:].any()
    assert not changed[:, reach:].any()
    np.testing.assert_array_equal(drawing.pictures["input.png"], given)
    soft = drawing.pictures["mask.png"]
    assert soft.shape == (50, 56, 1)
    assert (soft[:3, :3] > 200).all()
    assert soft[reach:].max() == 0


def test_nothing_that_fits_is_resampled(model, photo, tmp_path):
    """Of a size that is nearly the model's, too."""
    given = np.asarray(Image.open(photo))[:49]
    Image.fromarray(given).save(tmp_path / "near.png")
    options = Options(count=1, input=tmp_path / "near.png", scale_mul=(2.0, 2.0))
    drawing = make_drawing(replace(options, match_histogram=False), model)
    np.testing.assert_array_equal(drawing.pictures["input.png"], given)
    assert "near.png stays 49x56: it is shrunk where" in drawing.lines[1]


def test_what_is_transparent_in_a_mask_is_black(model, photo, tmp_path):
    """As programs that paint on layers write it."""
    mask = np.zeros((50, 56, 4), np.uint8)
    mask[:3, :3] = 255
    mask[30:, :, :3] = 255
    Image.fromarray(mask).save(tmp_path / "layer.png")
    options = Options(count=1, input=photo, mask=tmp_path / "layer.png")
    soft = make_drawing(options, model).pictures["mask.png"]
    assert (soft[:3, :3] > 200).all()
    assert soft[30:].max() == 0


def test_a_mask_that_keeps_nothing_is_told_and_one_that_vanishes_refused(
    model, photo, tmp_path
):
    Image.new("L", (56, 50), 255).save(tmp_path / "white.png")
    options = Options(count=1, input=photo, mask=tmp_path / "white.png")
    assert (
        "white.png is white everywhere: all of" in make_drawing(options, model).lines[1]
    )
    large, spot = Image.new("RGB", (1120, 1000)), np.zeros((1000, 1120), np.uint8)
    large.save(tmp_path / "large.png")
    spot[:2, :2] = 255
    Image.fromarray(spot).save(tmp_path / "spot.png")
    options = Options(input=tmp_path / "large.png", mask=tmp_path / "spot.png")
    with pytest.raises(PreflightError, match="at 50x56 nothing is left of it: paint"):
        make_drawing(options, model)


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("RGB", ""),
        ("RGBA", ""),
        ("LA", "it is gray and gets three equal channels"),
        ("I;16", "its numbers are rounded to 8 bits, it is gray and gets three equal"),
    ],
)
def test_what_becomes_of_an_image_is_told(tmp_path, mode, said):
    opaque = Image.new(mode, (4, 4)) if "A" not in mode else Image.new("L", (4, 4))
    opaque.convert(mode).save(tmp_path / "image.png")
    assert conversion(tmp_path / "image.png", 3).startswith(said)
    assert bool(conversion(tmp_path / "image.png", 3)) == bool(said)


def test_of_a_moving_image_the_first_is_said_to_be_taken(tmp_path):
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert "of several frames the first is taken" in conversion(tmp_path / "a.gif", 3)


def test_the_less_strength_the_more_is_left_of_an_input(model, photo):
    given = np.asarray(Image.open(photo)).astype(int)
    left = []
    for strength in (0.25, 1.0):
        options = Options(
            count=1, input=photo, strength=strength, match_histogram=False
        )
        drawing = make_drawing(options, model)
        np.testing.assert_array_equal(drawing.pictures["input.png"], given)
        left.append(np.abs(images_of(drawing)[0] - given).mean())
    assert left[0] < 0.6 * left[1]


def test_an_input_of_another_size_and_kind_is_made_to_fit_and_told(model, tmp_path):
    gray = np.tile(np.arange(200, dtype=np.uint8), (100, 1))
    Image.fromarray(gray).save(tmp_path / "gray.png")
    drawing = make_drawing(Options(count=1, input=tmp_path / "gray.png"), model)
    begun = drawing.pictures["input.png"]
    assert begun.shape == (37, 74, 3)
    assert images_of(drawing).shape == (1, 37, 74, 3)
    said = "\n".join(drawing.lines)
    assert "gray.png is 100x200 and is shrunk to 37x74" in said
    assert "it is gray and gets three equal channels" in said
    assert "gets the colours of the training image" in said
    for channel in range(3):
        assert begun[..., channel].mean() == pytest.approx(
            model.image[..., channel].mean(), abs=3
        )


def test_a_region_is_drawn_at_its_places(model):
    options = Options(
        count=1, roi=(5, 5, 20, 20), roi_to=((0, 0), (28, 30, 20, 24)), seed=3
    )
    drawing = make_drawing(options, model)
    pasted = drawing.pictures["regions.png"]
    np.testing.assert_array_equal(pasted[:20, :20], model.image[5:25, 5:25])
    assert (pasted[20:28] == 255).all()
    assert (pasted[28:48, 30:54] != 255).any()
    (drawn,) = images_of(drawing)
    source = model.image[5:25, 5:25].ravel()
    at_target, elsewhere = drawn[:20, :20].ravel(), drawn[:20, 36:].ravel()
    assert np.corrcoef(at_target, source)[0, 1] > 0.5
    assert np.corrcoef(elsewhere, source)[0, 1] < 0.3


def test_from_a_scale_on_the_training_image_is_kept(model):
    first, second = images_of(make_drawing(Options(count=2, from_scale=1), model))
    assert np.corrcoef(first.ravel(), model.image.ravel())[0, 1] > 0.5
    assert (first != second).mean() > 0.5


def test_times_are_those_asked_for(model):
    drawing = make_drawing(Options(count=3, times=(2,)), model)
    assert drawing.facts["times"] == [4, 2]
    assert drawing.work == 3 * (4 * 36 * 40 + 2 * 50 * 56)
    assert drawing.facts["mode"] == "random"
    assert "blobs, step 7: 3 images of 50x56, scales 0 ... 1" in drawing.lines[0]


def test_what_is_no_image_and_an_empty_mask_are_refused(model, photo, tmp_path):
    (tmp_path / "no.png").write_text("no image")
    Image.new("L", (56, 50), 1).save(tmp_path / "black.png")
    for options, message in (
        (Options(input=tmp_path / "no.png"), "no.png: not an image"),
        (Options(input=Path("nowhere.png")), "nowhere.png: "),
        (
            Options(input=photo, mask=tmp_path / "black.png"),
            "brightest pixel is 1 of 255",
        ),
        (Options(input=photo, mask=tmp_path / "no.png"), "no.png: not an image"),
    ):
        with pytest.raises(PreflightError) as caught:
            make_drawing(options, model)
        (problem,) = caught.value.problems
        assert message in problem
        assert "\n" not in problem
