"""Inception-v3 of FID against torch-fidelity's: golden/make_inception.py."""

from pathlib import Path

import inception_weights
import jax
import numpy as np
import pytest

from deepprism_jax.image_features import ImageFeatureNetwork
from deepprism_jax.models.inception import INCEPTION, prepare
from deepprism_jax.weights.inception import place, torch_shapes

with np.load(Path(__file__).parent / "golden" / "inception.npz") as file:
    GOLDEN = {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def state():
    return inception_weights.state_dict()


@pytest.fixture(scope="module")
def params(state):
    return place(INCEPTION.shapes(), state, "generated weights")


@pytest.fixture(scope="module")
def apply():
    return jax.jit(INCEPTION.apply)


@pytest.mark.parametrize(
    "size",
    [
        "32x32",
        pytest.param("299x299", marks=pytest.mark.slow),
        pytest.param("40x56", marks=pytest.mark.slow),
    ],
)
def test_equals_torch_fidelity(apply, params, state, size):
    features = apply(params, inception_weights.images(size))
    logits = features.logits + state["fc.bias"]
    for name, values in (
        ("2048", features.pool),
        ("logits_unbiased", features.logits),
        ("logits", logits),
    ):
        expected = GOLDEN[f"{size}.{name}"]
        # The network tells images apart, by much more than the tolerance.
        assert len(expected) == 1 or np.std(expected, axis=0).mean() > 0.1
        np.testing.assert_allclose(values, expected, atol=2e-5 * expected.std())


@pytest.mark.parametrize(
    "size", [name.split(".")[0] for name in GOLDEN if name.endswith("resized")]
)
def test_images_are_resized_as_in_torch_fidelity(size):
    large = prepare(inception_weights.images(size))
    found = 128 + 128 * np.asarray(large[0, ::13, ::13])
    # Both round to float32 on the way, at values up to 255.
    np.testing.assert_allclose(found, GOLDEN[f"{size}.resized"], atol=5e-5)


def test_an_image_of_299_pixels_is_only_scaled():
    images = inception_weights.images("299x299")
    np.testing.assert_array_equal(prepare(images), (images - np.float32(128)) / 128)


def test_a_gray_image_counts_as_three_equal_channels():
    gray = inception_weights.images("32x32")[..., :1]
    three = np.repeat(gray, 3, axis=-1)
    np.testing.assert_array_equal(prepare(gray), prepare(three))


@pytest.mark.usefixtures("without_type_checks")
def test_other_images_are_refused():
    with pytest.raises(TypeError, match=r"images are float32, not uint8: .*to_uint8"):
        prepare(np.zeros((1, 32, 32, 3), np.float32))
    with pytest.raises(ValueError, match="gray or RGB images, got 4 channels"):
        prepare(np.zeros((1, 32, 32, 4), np.uint8))


def test_parameters_are_those_of_the_torch_file(state):
    wanted = torch_shapes(INCEPTION.shapes())
    unread = {name for name in state if name.endswith("num_batches_tracked")}
    assert wanted == {
        name: tensor.shape
        for name, tensor in state.items()
        if name not in unread | {"fc.bias"}
    }
    assert isinstance(INCEPTION, ImageFeatureNetwork)
