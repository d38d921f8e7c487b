import json
import os
from pathlib import Path

import numpy as np
import pytest

RNG = np.random.default_rng(0)


@pytest.fixture
def codecs(benchmark_module):
    return benchmark_module("codecs_of_images")


def test_the_bytes_hold_the_integers_of_the_latent(codecs):
    latent = RNG.normal([0.0, 5.0, -3.0], [1.0, 2.0, 0.1], (12, 20, 3))
    stream = codecs.pack(latent, (47, 80), 0.5)
    found, size = codecs.unpack(stream)
    steps = np.asarray(0.5 * latent.std((0, 1)), np.float32)
    assert size == (47, 80)
    np.testing.assert_array_equal(np.round(found / steps), np.round(latent / steps))
    # No more than the entropy of independent Gaussians so quantised, and its tables.
    assert len(stream) < 12 * 20 * 3 * 3.1 / 8 + 400
    with pytest.raises(ValueError, match="more than 256 levels; take a longer"):
        codecs.pack(latent, (47, 80), 0.01)


def test_the_best_quality_within_so_many_bytes_is_found(codecs):
    pixels = RNG.integers(0, 256, (8, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    for codec, encode in codecs.CODECS.items():
        qualities = codecs.Qualities(pixels, codec)
        half = encode(pixels, 50)
        found = qualities.within(len(half))
        assert found in [encode(pixels, quality) for quality in range(50, 60)]
        assert qualities.within(20) is None
        assert codecs.pixels_of(found).shape == pixels.shape


@pytest.mark.parametrize("side", [8, 0])
def test_tiles_are_put_back_where_they_were(benchmark_module, side):
    def encode(x):
        return np.asarray(x, np.float32)[:, ::4, ::4]

    def decode(z):
        return np.asarray(z, np.uint8).repeat(4, 1).repeat(4, 2)

    coder = benchmark_module("tiled_coder").Coder(encode, decode, side, 4)
    small = RNG.integers(0, 256, (5, 7, 3), np.uint8)
    image = small.repeat(4, 0).repeat(4, 1)[:18, :27]  # cut within tiles
    latent = coder.latent(image)
    np.testing.assert_array_equal(latent[:5, :7], small)
    np.testing.assert_array_equal(coder.image(latent, (18, 27)), image)


@pytest.mark.slow
def test_a_photograph_is_measured_by_every_codec(benchmark_module, tmp_path):
    if "DEEPPRISM_SHARED" not in os.environ:
        pytest.skip("DEEPPRISM_SHARED names no folder with data/images/kodak24")
    folder = Path(os.environ["DEEPPRISM_SHARED"]) / "data" / "images" / "kodak24"
    program = benchmark_module("rate_distortion")
    options = program.Options(
        folder=str(folder),
        steps=(0.5, 2.0),
        qualities=(5, 50),
        limit=1,
        json=str(tmp_path / "figures.json"),
    )
    program.main(options)
    found = json.loads((tmp_path / "figures.json").read_text())
    assert [row["setting"] for row in found["rows"]] == [
        *("step 2", "step 0.5"),
        *("quality 5", "quality 50") * 2,
    ]
    latent = found["rows"][:2]
    assert latent[0]["bits_per_pixel"] < latent[1]["bits_per_pixel"] < 0.8
    assert latent[0]["psnr"] < latent[1]["psnr"] > 24
    # Others have at most the bytes of the latent, and nearly as many.
    (fine, _) = found["equal_bytes"]
    bits = [row["bits_per_pixel"] for row in fine["codecs"].values()]
    assert max(bits) == bits[0]
    assert min(bits) > 0.9 * bits[0]


def test_a_folder_without_images_is_refused(benchmark_module, tmp_path):
    program = benchmark_module("rate_distortion")
    with pytest.raises(SystemExit, match="has no images; give a folder of some"):
        program.main(program.Options(folder=str(tmp_path)))
