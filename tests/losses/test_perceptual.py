import os
from functools import partial
from pathlib import Path

import generated_weights
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepprism_jax.losses import (
    PerceptualDistance,
    layer_weights,
    perceptual_distance,
)
from deepprism_jax.metrics.lpips import lpips
from deepprism_jax.models.feature_networks import NETWORKS
from deepprism_jax.weights.torchvision import (
    load_feature_network,
    load_perceptual_distance,
)

GOLDEN = Path(__file__).parent / "golden" / "lpips.npz"


def feature_maps(seed, scale=1.0):
    keys = jax.random.split(jax.random.key(seed), 2)
    shapes = (2, 4, 3, 5), (2, 2, 2, 7)
    return [scale * jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]


HEADS = [jnp.linspace(0.0, 1.0, 5), jnp.linspace(1.0, 0.0, 7)]


@pytest.fixture(scope="module")
def distances(tmp_path_factory):
    """The three distances with generated weights, loaded from torchvision's layout."""

    def make(net):
        network = NETWORKS[net]
        shapes = {
            f"features.{name}": shape for name, shape in torch_shapes(network.shapes())
        }
        path = tmp_path_factory.mktemp("weights") / f"{net}.npz"
        np.savez(path, **generated_weights.state_dict(shapes))
        heads = tuple(jnp.asarray(h) for h in generated_weights.heads(network.channels))
        return PerceptualDistance(network, load_feature_network(net, path), heads)

    return {net: make(net) for net in NETWORKS}


def torch_shapes(shapes, prefix=""):
    for name, value in shapes.items():
        if isinstance(value, dict):
            yield from torch_shapes(value, f"{prefix}{name}.")
        elif name == "kernel":
            h, w, i, o = value.shape
            yield f"{prefix}weight", (o, i, h, w)
        else:
            yield prefix + name, value.shape


def golden(kind):
    """Golden arrays by case, `{net}.{height}x{width}`."""
    with np.load(GOLDEN) as file:
        return {
            name.removesuffix(f".{kind}"): file[name]
            for name in file.files
            if name.endswith(kind)
        }


def golden_images(case):
    size = case.split(".")[1].split("x")
    return map(jnp.asarray, generated_weights.image_pair(*map(int, size)))


@pytest.mark.parametrize("case", golden("layers"))
def test_each_layer_equals_the_lpips_package(distances, case):
    """At odd, even and smallest sizes: golden/make_lpips.py."""
    distance = distances[case.split(".")[0]]

    @jax.jit
    def layers(frozen, x, y):
        features = (distance.network.apply(frozen["params"], image) for image in (x, y))
        return [
            perceptual_distance([a], [b], [head])
            for a, b, head in zip(*features, frozen["heads"], strict=True)
        ]

    values = layers(distance.frozen, *golden_images(case))
    np.testing.assert_allclose(values, golden("layers")[case], rtol=5e-5)


@pytest.mark.parametrize("case", golden("gradient"))  # one: compiling takes seconds
def test_value_and_gradient_equal_the_lpips_package(distances, case):
    distance = distances[case.split(".")[0]]

    def total(x, y, frozen):
        return jnp.sum(distance.apply(frozen, x, y))

    value_and_gradient = jax.jit(jax.value_and_grad(total))
    value, gradient = value_and_gradient(*golden_images(case), distance.frozen)
    np.testing.assert_allclose(value, golden("layers")[case].sum(), rtol=1e-5)
    expected = golden("gradient")[case]
    # Not closer: a sum within rounding of a ReLU's corner passes on one side only.
    np.testing.assert_allclose(
        gradient[:, ::5, ::5], expected, atol=1e-3 * np.abs(expected).max()
    )


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=() if "squeeze" in case else pytest.mark.slow)
        for case in golden("pixels")
    ],
)
def test_8_bit_images_have_the_lpips_of_the_package(distances, case):
    """From pixels to the sum of all layers."""
    size = case.split(".")[1].split("x")
    distance = distances[case.split(".")[0]]
    measure = jax.jit(partial(lpips, distance=distance))
    values = measure(
        *generated_weights.pixel_pair(*map(int, size)), frozen=distance.frozen
    )
    np.testing.assert_allclose(values, golden("pixels")[case], rtol=1e-5)


@pytest.mark.skipif(
    "DEEPPRISM_SHARED" not in os.environ,
    reason="DEEPPRISM_SHARED does not name a directory with SqueezeNet's weights",
)
def test_lpips_squeeze_equals_the_published_values():
    weights = Path(os.environ["DEEPPRISM_SHARED"]) / "weights"
    distance = load_perceptual_distance(
        "squeeze",
        weights / "squeezenet1_1_torchvision_fp16.npz",
        weights / "lpips_v0.1_lin.npz",
    )
    with np.load(weights / "lpips_squeeze_golden.npz") as file:
        x, y = (
            jnp.asarray(file[name].transpose(0, 2, 3, 1))
            for name in ("a_nchw", "b_nchw")
        )
        values = jax.jit(distance.apply)(distance.frozen, x, y)
        np.testing.assert_allclose(values, file["published"], atol=2e-4)
        np.testing.assert_allclose(values, file["ours"], atol=1e-6)


def test_equals_its_definition():
    x, y = feature_maps(0), feature_maps(1)
    expected = 0.0
    for a, b, w in zip(x, y, HEADS, strict=True):
        a, b, w = (np.asarray(v, np.float64) for v in (a, b, w))
        a /= np.linalg.norm(a, axis=-1, keepdims=True)
        b /= np.linalg.norm(b, axis=-1, keepdims=True)
        expected += (w * (a - b) ** 2).sum(-1).mean((1, 2))
    distance = jax.jit(perceptual_distance)(x, y, HEADS)
    np.testing.assert_allclose(distance, expected, rtol=1e-5)


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(st.integers(0, 1000), st.floats(0.1, 100.0))
def test_laws(seed, scale):
    measure = jax.jit(perceptual_distance)
    x, y = feature_maps(seed), feature_maps(seed + 1)
    distance = measure(x, y, HEADS)
    np.testing.assert_allclose(measure(x, x, HEADS), 0.0, atol=1e-12)
    np.testing.assert_allclose(measure(y, x, HEADS), distance, rtol=1e-6)
    assert np.all(distance > 0)
    # Only the direction of a feature counts.
    longer = feature_maps(seed, scale)
    np.testing.assert_allclose(measure(longer, y, HEADS), distance, rtol=1e-4)


def test_gradient_is_finite_where_features_vanish():
    x, y = feature_maps(0), feature_maps(1)
    x[0] = x[0].at[0, 0].set(0.0)

    def total(x):
        return jnp.sum(perceptual_distance(x, y, HEADS))

    gradients = jax.jit(jax.grad(total))(x)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_layer_weights_are_positive_with_mean_one():
    np.testing.assert_allclose(layer_weights(jnp.zeros(5)), np.ones(5))
    weights = layer_weights(jnp.array([-3.0, 0.0, 4.0]))
    assert np.all(weights > 0)
    assert np.all(np.diff(weights) > 0)
    np.testing.assert_allclose(weights.mean(), 1.0, rtol=1e-6)


def test_minimising_over_the_layer_weights_does_not_switch_the_term_off():
    x, y = feature_maps(0), feature_maps(1)
    one = jnp.ones(1)
    layers = [perceptual_distance([a], [b], one) for a, b in zip(x, y, strict=True)]

    def loss(raw):
        return jnp.mean(perceptual_distance(x, y, layer_weights(raw)))

    raw = jnp.zeros(2)
    gradient = jax.jit(jax.grad(loss))
    for _ in range(100):
        raw = raw - gradient(raw)
    assert loss(raw) < loss(jnp.zeros(2))
    assert loss(raw) > 2 * np.min(np.mean(layers, axis=1)) * 0.99


class TwoLayers:
    """The least that a perceptual distance can be built on."""

    channels = (5, 7)

    def apply(self, params, images):
        first = jnp.tanh(images @ params[0])
        return [first, jnp.tanh(first[:, ::2, ::2] @ params[1])]


PARAMS = [
    jnp.asarray(generated_weights.uniform(300, (3, 5))),
    jnp.asarray(generated_weights.uniform(301, (5, 7))),
]


def test_gradient_reaches_the_reconstruction_and_the_learnable_weights():
    distance = PerceptualDistance(TwoLayers(), PARAMS)
    assert distance.learnable
    x, y = map(jnp.asarray, generated_weights.image_pair(6, 4))

    def loss(x, raw):
        return jnp.mean(distance.apply(distance.frozen, x, y, raw))

    to_image, to_raw = jax.jit(jax.grad(loss, argnums=(0, 1)))(x, distance.init())
    assert np.all(np.isfinite(to_image))
    assert to_image.any()
    assert np.all(to_raw != 0)
    # Only ratios are learned: a common shift of all weights changes nothing.
    np.testing.assert_allclose(to_raw.sum(), 0.0, atol=1e-6)


def test_learnable_weights_begin_as_the_plain_sum_of_layers():
    distance = PerceptualDistance(TwoLayers(), PARAMS)
    x, y = map(jnp.asarray, generated_weights.image_pair(6, 4))
    features = (distance.network.apply(PARAMS, image) for image in (x, y))
    expected = perceptual_distance(*features, jnp.ones(2))
    np.testing.assert_allclose(distance(x, y, distance.init()), expected, rtol=1e-6)


def test_images_in_0_to_1_are_refused_where_they_can_be_looked_at():
    distance = PerceptualDistance(TwoLayers(), PARAMS, tuple(HEADS))
    x, y = map(jnp.asarray, generated_weights.image_pair(6, 4))
    with pytest.raises(ValueError, match=r"looks like \[0, 1\] where \[-1, 1\] is due"):
        distance(x, (y + 1) / 2)
    traced = jax.jit(lambda x, y: distance(x, y))
    np.testing.assert_allclose(traced(x, y), distance(x, y), rtol=1e-6)


def test_heads_and_learnable_weights_exclude_each_other():
    with_heads = PerceptualDistance(TwoLayers(), PARAMS, tuple(HEADS))
    without = PerceptualDistance(TwoLayers(), PARAMS)
    x = jnp.zeros((1, 4, 4, 3))
    with pytest.raises(ValueError, match="got both"):
        with_heads(x, x, without.init())
    with pytest.raises(ValueError, match="got neither"):
        without(x, x)
    with pytest.raises(ValueError, match="no layer weights to learn"):
        with_heads.init()


def test_needs_a_weight_a_layer():
    with pytest.raises(ValueError, match="2 and 2 feature maps need as many weights"):
        perceptual_distance(feature_maps(0), feature_maps(1), HEADS[:1])
