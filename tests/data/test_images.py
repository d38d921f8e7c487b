"""Files and arrays of every mode become the pixels that a viewer would show."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deepprism_jax.data.images import (
    UnreadableImageError,
    broken_header,
    check_layout,
    decode,
    to_channels,
)

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 8, 3), np.uint8)
GRAY = RNG.integers(0, 256, (6, 8), np.uint8)


def stored(image: Image.Image, format: str = "PNG", **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, format, **options)
    file.seek(0)
    return file


def read(image: Image.Image, channels: int = 3, format: str = "PNG", **options):
    size = (image.height, image.width)
    file = stored(image, format, **options)
    return decode(file, image_size=size, channels=channels, resize="keep")


def luma(rgb: np.ndarray) -> np.ndarray:
    """ITU-R 601, from its three coefficients."""
    return rgb.astype(float) @ np.array([0.299, 0.587, 0.114])


def test_rgb_is_read_as_it_is():
    np.testing.assert_array_equal(read(Image.fromarray(RGB)), RGB)


def test_gray_fills_three_channels():
    np.testing.assert_array_equal(
        read(Image.fromarray(GRAY)), np.repeat(GRAY[..., None], 3, -1)
    )


def test_rgb_to_gray_is_luma():
    gray = read(Image.fromarray(RGB), channels=1)
    assert gray.shape == (6, 8, 1)
    assert np.abs(gray[..., 0] - luma(RGB)).max() <= 0.51


def test_missing_alpha_is_opaque():
    rgba = read(Image.fromarray(RGB), channels=4)
    np.testing.assert_array_equal(rgba[..., :3], RGB)
    assert (rgba[..., 3] == 255).all()


def test_transparency_lies_over_white():
    alpha = np.full((6, 8, 1), 255, np.uint8)
    alpha[:3] = 0
    alpha[3] = 128
    rgba = Image.fromarray(np.concatenate([RGB, alpha], -1))
    out = read(rgba)
    assert (out[:3] == 255).all()
    half = RGB[3] * (128 / 255) + 255 * (127 / 255)
    assert np.abs(out[3] - half).max() <= 1
    np.testing.assert_array_equal(out[4:], RGB[4:])
    np.testing.assert_array_equal(read(rgba, channels=4)[..., 3:], alpha)


def test_gray_with_alpha_lies_over_white():
    alpha = np.where(np.arange(8) < 4, 0, 255).astype(np.uint8)
    la = Image.fromarray(np.stack([GRAY, np.broadcast_to(alpha, GRAY.shape)], -1))
    out = read(la, channels=1)[..., 0]
    assert (out[:, :4] == 255).all()
    np.testing.assert_array_equal(out[:, 4:], GRAY[:, 4:])


@pytest.mark.parametrize("transparent", [False, True])
def test_palette(transparent):
    indices = RNG.integers(0, 4, (6, 8)).astype(np.uint8)
    colours = RNG.integers(0, 256, (4, 3), np.uint8)
    image = Image.fromarray(indices, "L").convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(colours.ravel().tolist())
    options = {"transparency": 2} if transparent else {}
    expected = colours[indices]
    if transparent:
        expected[indices == 2] = 255
    np.testing.assert_array_equal(read(image, **options), expected)


def test_cmyk():
    # Full ink of each colour, then none: cyan, magenta, yellow, black, white.
    inks = np.zeros((1, 5, 4), np.uint8)
    inks[0, range(4), range(4)] = 255
    out = read(Image.fromarray(inks, "CMYK"), format="TIFF")[0]
    expected = [[0, 255, 255], [255, 0, 255], [255, 255, 0], [0, 0, 0], [255, 255, 255]]
    np.testing.assert_array_equal(out, expected)


def test_bilevel():
    bits = GRAY > 127
    out = read(Image.fromarray(bits), channels=1)[..., 0]
    np.testing.assert_array_equal(out, np.where(bits, 255, 0))


def test_sixteen_bits_are_scaled_not_clipped():
    wide = np.array([[0, 128, 257, 12850, 65407, 65535]], np.uint16)
    out = read(Image.fromarray(wide), channels=1)[..., 0]
    np.testing.assert_array_equal(out, np.rint(wide / 257))


def test_thirty_two_bit_integers_count_as_sixteen():
    wide = np.array([[0, 12850, 65535, 70000]], np.int32)
    out = read(Image.fromarray(wide), channels=1, format="TIFF")[..., 0]
    np.testing.assert_array_equal(out, [[0, 50, 255, 255]])


def test_floats_are_refused():
    with pytest.raises(UnreadableImageError, match="no known range"):
        read(Image.fromarray(GRAY.astype(np.float32)), format="TIFF")


UPRIGHT = {  # How the file's pixels were laid down, by EXIF orientation.
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, 1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x, -1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    laid_down = np.ascontiguousarray(UPRIGHT[orientation](RGB))
    file = stored(Image.fromarray(laid_down), exif=exif)
    out = decode(file, image_size=(6, 8), channels=3)
    np.testing.assert_array_equal(out, RGB)


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (5, 5), colour) for colour in ("red", "blue")]
    out = read(frames[0], format="GIF", save_all=True, append_images=frames[1:])
    assert (out == [255, 0, 0]).all()


SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, st.sampled_from([1, 3, 4]))
def test_covered_image_touches_the_crop_and_keeps_its_shape(size, crop, channels):
    image = Image.new("RGB", size[::-1], (10, 200, 90))
    out = decode(stored(image), image_size=crop, channels=channels)
    assert out.shape[0] >= crop[0]
    assert out.shape[1] >= crop[1]
    assert out.shape[0] == crop[0] or out.shape[1] == crop[1]
    scale = max(crop[0] / size[0], crop[1] / size[1])
    assert np.abs(np.array(out.shape[:2]) - scale * np.array(size)).max() <= 0.5 + 1e-9
    flat = out.reshape(-1, channels)
    assert (flat == flat[0]).all()


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES)
def test_kept_image_is_only_enlarged(size, crop):
    image = Image.new("RGB", size[::-1])
    out = decode(stored(image), image_size=crop, channels=3, resize="keep")
    if size[0] >= crop[0] and size[1] >= crop[1]:
        assert out.shape == (*size, 3)
    else:
        covered = decode(stored(image), image_size=crop, channels=3, resize="cover")
        assert out.shape == covered.shape


def test_downsampling_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    out = decode(stored(Image.fromarray(stripes)), image_size=(8, 8), channels=3)
    assert np.abs(out[:, 2:-2].astype(int) - 128).max() <= 2


@pytest.mark.parametrize("size", [(256, 384), (384, 256)])
def test_reduced_jpeg_decoding_is_close_to_the_whole(size):
    x, y = np.meshgrid(np.arange(size[1]), np.arange(size[0]))
    smooth = np.stack([x % 256, y % 256, (x + y) // 3], -1).astype(np.uint8)
    file = stored(Image.fromarray(smooth), "JPEG", quality=95)
    out = decode(file, image_size=(32, 32), channels=3)
    short = 32 / min(size)
    whole = Image.open(file).resize(
        (round(size[1] * short), round(size[0] * short)), Image.Resampling.BICUBIC
    )
    assert out.shape == (whole.height, whole.width, 3)
    assert np.abs(out - np.asarray(whole).astype(float)).mean() < 2


@pytest.mark.parametrize("bad", [b"", b"hello", b"\x89PNG\r\n\x1a\n"])
def test_broken_header_is_named(tmp_path, bad):
    path = tmp_path / "photo.png"
    path.write_bytes(bad)
    assert broken_header(path)
    with pytest.raises(UnreadableImageError, match=r"photo\.png: ") as error:
        decode(path, image_size=(4, 4), channels=3)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_truncated_file_has_a_sound_header_and_broken_pixels(tmp_path, format):
    noise = RNG.integers(0, 256, (64, 64, 3), np.uint8)
    path = tmp_path / "photo"
    path.write_bytes(stored(Image.fromarray(noise), format).getvalue()[:2000])
    assert broken_header(path) == ""
    with pytest.raises(UnreadableImageError, match="photo: ") as error:
        decode(path, image_size=(4, 4), channels=3, resize="keep")
    assert error.value.reason


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("given_channels", [1, 3, 4])
def test_array_converts_as_its_file_does(given_channels, channels):
    array = RNG.integers(0, 256, (6, 8, given_channels), np.uint8)
    image = Image.fromarray(array[..., 0] if given_channels == 1 else array)
    np.testing.assert_array_equal(to_channels(array, channels), read(image, channels))


def test_array_of_two_channels_is_refused():
    with pytest.raises(ValueError, match="neither 1, 3 nor 4"):
        to_channels(np.zeros((2, 2, 2), np.uint8), 3)


@pytest.mark.parametrize(
    ("image_size", "channels", "message"),
    [((0, 8), 3, "image_size=.0, 8. must be"), ((8, 8), 2, "channels=2; choose 1")],
)
def test_impossible_layout(image_size, channels, message):
    with pytest.raises(ValueError, match=message):
        check_layout(image_size, channels)
