import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepprism_jax.models.feature_networks import (
    ALEXNET,
    NETWORKS,
    SHIFT,
    SQUEEZENET,
    VGG16,
    MaxPool,
    feature_network,
)


def abstract_features(network, shape, dtype=jnp.float32):
    params = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), network.shapes()
    )
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(network.apply, params, images)


@pytest.mark.parametrize(
    ("network", "parameters"),
    # torchvision's features, without the classifier.
    [(SQUEEZENET, 722_496), (VGG16, 14_714_688), (ALEXNET, 2_469_696)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_parameter_counts(network, parameters):
    leaves = jax.tree.leaves(network.shapes())
    assert sum(np.prod(leaf.shape) for leaf in leaves) == parameters


@pytest.mark.parametrize(
    ("network", "sizes"),
    [
        # At 224 pixels, as the architectures' tables have them.
        (SQUEEZENET, [111, 55, 27, 13, 13, 13, 13]),
        (VGG16, [224, 112, 56, 28, 14]),
        (ALEXNET, [55, 27, 13, 13, 13]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_feature_shapes(network, sizes):
    features = abstract_features(network, (2, 224, 224, 3))
    expected = [(2, s, s, c) for s, c in zip(sizes, network.channels, strict=True)]
    assert [feature.shape for feature in features] == expected


@pytest.mark.parametrize("network", NETWORKS.values(), ids=lambda n: n.name)
def test_the_smallest_size_works_and_one_pixel_less_is_refused(network):
    least = network.min_size
    assert least == {"squeeze": 17, "vgg": 16, "alex": 31}[network.name]
    last = abstract_features(network, (1, least, least + 5, 3))[-1]
    assert min(last.shape) >= 1
    message = f"{network.name} feature network needs images of at least {least}x{least}"
    with pytest.raises(ValueError, match=f"{message}, got {least + 5}x{least - 1}"):
        abstract_features(network, (1, least + 5, least - 1, 3))


def test_channels_that_are_neither_gray_nor_rgb_are_refused():
    with pytest.raises(ValueError, match="reads gray or RGB images, got 4 channels"):
        abstract_features(SQUEEZENET, (1, 32, 32, 4))


def test_gray_counts_as_three_equal_channels():
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01), ALEXNET.shapes())
    gray = jax.random.uniform(jax.random.key(0), (1, 31, 31, 1))
    apply = jax.jit(lambda x: ALEXNET.apply(params, x)[0])
    np.testing.assert_array_equal(apply(gray), apply(jnp.repeat(gray, 3, -1)))


def test_scaling_layer_maps_the_mean_colour_to_zero():
    """With unit kernels and no bias, ImageNet's mean colour leaves nothing."""
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), ALEXNET.shapes())
    params = {
        name: {"kernel": p["kernel"], "bias": 0 * p["bias"]}
        for name, p in params.items()
    }
    images = jnp.broadcast_to(jnp.array(SHIFT), (1, 31, 31, 3))
    assert all(not feature.any() for feature in ALEXNET.apply(params, images))


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("size", [3, 6, 7, 8])
def test_max_pool_equals_a_loop(size, ceil):
    x = -jax.random.uniform(jax.random.key(size), (1, size, 9, 1)) - 1.0
    pool = MaxPool(3, ceil=ceil)
    # A window may be cut by the edge, but at least one of its elements is inside.
    starts = [
        range(0, n if ceil else n - 2, 2)[: (n - 3 + int(ceil)) // 2 + 1]
        for n in (size, 9)
    ]
    expected = [
        [np.max(x[0, i : i + 3, j : j + 3, 0]) for j in starts[1]] for i in starts[0]
    ]
    np.testing.assert_array_equal(pool(x)[0, ..., 0], expected)


def test_computes_in_the_type_of_its_parameters():
    features = abstract_features(SQUEEZENET, (1, 32, 32, 3), jnp.bfloat16)
    assert {feature.dtype for feature in features} == {jnp.dtype(jnp.bfloat16)}


def test_unknown_network_names_the_choices():
    with pytest.raises(ValueError, match="'resnet'; choose one of squeeze, vgg, alex"):
        feature_network("resnet")
