"""Where drawn images go, and the images that go into a drawing."""

import json

import numpy as np
import pytest
from PIL import Image

from deepprism_jax.data.images import UnreadableImageError, decode_whole
from deepprism_jax.sampling import folder, pictures


def noise(height=8, width=6, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_the_next_folder_is_after_all_that_are_there(tmp_path):
    assert folder.make_next_folder(tmp_path) == tmp_path / "drawn" / "0000"
    for name in ("0003", "mine"):
        (tmp_path / "drawn" / name).mkdir()
    assert folder.make_next_folder(tmp_path) == tmp_path / "drawn" / "0004"
    assert (tmp_path / "drawn" / "0004").is_dir()


def test_a_folder_that_holds_something_is_refused(tmp_path):
    folder.check_folder(tmp_path / "new")
    folder.check_folder(tmp_path)
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="holds something else: choose a new"):
        folder.check_folder(tmp_path)
    folder.save_record(tmp_path, {"seeds": [0, 1]})
    with pytest.raises(FileExistsError, match="holds images drawn before"):
        folder.check_folder(tmp_path)
    with pytest.raises(FileExistsError, match="is a file"):
        folder.check_folder(tmp_path / "letter.txt")
    assert json.loads((tmp_path / "samples.json").read_text()) == {"seeds": [0, 1]}


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_are_written_without_loss(tmp_path, channels):
    image = noise(channels=channels)
    folder.save_image(tmp_path / "new" / "0000.png", image)
    (written,) = (tmp_path / "new").iterdir()
    np.testing.assert_array_equal(decode_whole(written, channels), image)


def test_the_grid_is_about_square_and_holds_all(tmp_path):
    assert folder.columns_of(16, (186, 248)) == 3
    assert folder.columns_of(4, (40, 160)) == 1
    assert folder.columns_of(1, (160, 40)) == 1
    images = [noise(seed=seed) for seed in range(5)]
    folder.write_grid(tmp_path, images)
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    columns = folder.columns_of(5, (8, 6))
    assert grid.shape == (2 + 2 * (8 + 2), 2 + columns * (6 + 2), 3)
    np.testing.assert_array_equal(grid[2:10, 10:16], images[1])
    row, column = divmod(4, columns)
    top, left = 2 + row * 10, 2 + column * 8
    np.testing.assert_array_equal(grid[top : top + 8, left : left + 6], images[4])


def test_images_of_a_large_grid_are_shrunk(monkeypatch):
    monkeypatch.setattr(folder, "GRID_PIXELS", 100)
    assert folder.thumbnail(noise(20, 10), 2).shape == (10, 5, 3)
    assert folder.thumbnail(noise(5, 5), 4).shape == (5, 5, 3)


def test_a_picture_keeps_its_size_and_says_what_becomes_of_its_colours(tmp_path):
    Image.fromarray(noise(5, 9)).save(tmp_path / "rgb.png")
    Image.fromarray(noise(5, 9)[..., 0]).save(tmp_path / "gray.png")
    Image.fromarray(noise(5, 9, 4)).save(tmp_path / "alpha.png")
    said = {}
    for name in ("rgb", "gray", "alpha"):
        assert decode_whole(tmp_path / f"{name}.png", 3).shape == (5, 9, 3)
        said[name] = pictures.conversion(tmp_path / f"{name}.png", 3)
    assert said["rgb"] == ""
    assert "gray" in said["gray"]
    assert "laid over white" in said["alpha"]
    assert pictures.conversion(tmp_path / "alpha.png", 4) == ""
    (tmp_path / "no.png").write_text("no image")
    with pytest.raises(UnreadableImageError, match=r"no\.png: not an image"):
        decode_whole(tmp_path / "no.png", 3)


def test_colours_become_those_of_the_reference():
    image, reference = noise(40, 40) // 4, 128 + noise(30, 50, seed=1) // 2
    matched = pictures.with_colours_of(image, reference)
    for channel in range(3):
        np.testing.assert_allclose(
            np.quantile(matched[..., channel], [0.1, 0.5, 0.9]),
            np.quantile(reference[..., channel], [0.1, 0.5, 0.9]),
            atol=3,
        )
    # What was darker stays so.
    order = np.argsort(image[..., 0], axis=None)
    assert (np.diff(matched[..., 0].ravel()[order].astype(int)) >= 0).all()
    np.testing.assert_array_equal(pictures.with_colours_of(image, image), image)
