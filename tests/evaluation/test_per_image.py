"""One line an image, in full, and the file appears when it is complete."""

import csv

import numpy as np
import pytest

from deepprism_jax.evaluation.per_image import PerImage


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_lines_are_the_images_that_count(tmp_path):
    path = tmp_path / "new" / "per_image.csv"
    first = np.float32([24.104212, np.nan, 1 / 3])
    with PerImage(path, ["psnr", "ssim"]) as images:
        images.add(np.arange(3), {"ssim": first, "psnr": first + 1})
        assert not path.exists()
        padded = np.array([True, False])
        images.add([7, 9], {"psnr": np.float32([3, 4])}, padded)
    head, *rows = read(path)
    assert head == ["index", "psnr", "ssim"]
    assert [int(row[0]) for row in rows] == [0, 1, 2, 7]
    assert np.array_equal(np.float32([r[2] for r in rows[:3]]), first, equal_nan=True)
    assert np.float32(rows[2][1]) == first[2] + 1
    assert rows[3] == ["7", "3.0", ""]
    assert list(path.parent.iterdir()) == [path]


def test_an_evaluation_that_breaks_off_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "per_image.csv"
    path.write_text("before")

    def broken_off():
        with PerImage(path, ["psnr"]) as images:
            images.add([0], {"psnr": np.float32([1])})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fid": np.zeros(2)}, "'fid' is none of the columns"),
        ({"psnr": np.zeros(3)}, r"'psnr' has shape \(3,\), not one number for each"),
    ],
)
def test_figures_that_fit_no_column_or_image_are_refused(values, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        with PerImage(tmp_path / "per_image.csv", ["psnr"]) as images:
            images.add([0, 1], values)
    assert list(tmp_path.iterdir()) == []
