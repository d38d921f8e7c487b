"""EfficientNet-Lite0 against its torch module: golden/make_efficientnet.py."""

from functools import partial
from pathlib import Path

import efficientnet_weights
import inception_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from deepprism_jax.image_features import ImageFeatureNetwork
from deepprism_jax.models.efficientnet import (
    EFFICIENTNET_LITE0,
    _conv,
    _shifted,
    prepare,
)
from deepprism_jax.weights.efficientnet import place, torch_shapes

with np.load(Path(__file__).parent / "golden" / "efficientnet.npz") as file:
    GOLDEN = {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def state():
    return efficientnet_weights.state_dict(torch_shapes())


@pytest.fixture(scope="module")
def params(state):
    return place(state, "generated weights")


@pytest.fixture(scope="module")
def apply():
    return jax.jit(EFFICIENTNET_LITE0.apply)


@pytest.mark.parametrize(
    "size",
    [
        "32x32",
        pytest.param("40x56", marks=pytest.mark.slow),
        pytest.param("300x260", marks=pytest.mark.slow),
    ],
)
def test_equals_the_torch_module(apply, params, size):
    features = apply(params, inception_weights.images(size)[:2])
    for name, values in features._asdict().items():
        expected = GOLDEN[f"{size}.{name}"]
        # The network tells images apart, by much more than the tolerance.
        assert len(expected) == 1 or np.ptp(expected, axis=0).mean() > 0.02
        np.testing.assert_allclose(values, expected, atol=2e-5 * expected.std())


@pytest.mark.parametrize(("size", "strides"), [(3, 1), (3, 2), (5, 2)])
def test_a_filter_is_the_same_on_every_platform(size, strides):
    """What XLA's CPU backend does by shifted sums, the others do by a convolution."""
    draw = jax.random.normal
    kernel = draw(jax.random.key(0), (size, size, 1, 4))
    filters = {"kernel": kernel, "bias": jnp.arange(4.0)}
    x = draw(jax.random.key(1), (2, 10, 7, 4))
    conv = jax.jit(partial(_conv, strides=strides, groups=4))
    shifted = jax.jit(partial(_shifted, strides=strides))
    np.testing.assert_allclose(shifted(filters, x), conv(filters, x), atol=1e-5)


@pytest.mark.parametrize("size", efficientnet_weights.SIZES)
def test_images_are_resized_as_by_pillow_in_floats(size):
    images = inception_weights.images(size)[:1]
    bands = [
        Image.fromarray(images[0, ..., band].astype(np.float32)).resize(
            (224, 224), Image.Resampling.BICUBIC
        )
        for band in range(3)
    ]
    expected = (np.stack(bands, -1) - 127) / 128
    # Weights in float32 at up to 300 pixels: 0.003 of 255 grey levels.
    np.testing.assert_allclose(prepare(images)[0], expected, atol=3e-5)


def test_a_gray_image_counts_as_three_equal_channels():
    gray = inception_weights.images("32x32")[:1, ..., :1]
    three = np.repeat(gray, 3, axis=-1)
    np.testing.assert_allclose(prepare(gray), prepare(three), atol=1e-6)


@pytest.mark.usefixtures("without_type_checks")
def test_other_images_are_refused():
    with pytest.raises(TypeError, match=r"images are float32, not uint8: .*to_uint8"):
        prepare(np.zeros((1, 32, 32, 3), np.float32))
    with pytest.raises(ValueError, match="gray or RGB images, got 4 channels"):
        prepare(np.zeros((1, 32, 32, 4), np.uint8))


def test_a_state_dict_of_another_network_is_refused(state):
    def check(message, **changed):
        with pytest.raises(ValueError, match=message):
            place(state | changed, "weights file other.pth")

    get = "get efficientnet_lite0"
    check(
        rf"other.pth is not EfficientNet-Lite0: _fc.bias has shape \(10,\), .*{get}",
        **{"_fc.bias": np.zeros(10, np.float32)},
    )
    check(
        "_conv_stem.weight has values that are not finite",
        **{"_conv_stem.weight": np.full_like(state["_conv_stem.weight"], np.nan)},
    )
    with pytest.raises(ValueError, match=r"it has no _conv_stem\.weight"):
        place({}, "nothing")


def test_parameters_are_as_many_as_published(params):
    """4,652,008, of which each batch norm's scale is folded into its kernel."""
    assert isinstance(EFFICIENTNET_LITE0, ImageFeatureNetwork)
    shapes = EFFICIENTNET_LITE0.shapes()
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda s: s.shape, shapes)
    trained = {
        name: shape for name, shape in torch_shapes().items() if "running" not in name
    }
    assert sum(int(np.prod(shape)) for shape in trained.values()) == 4_652_008
