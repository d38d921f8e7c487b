from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deepprism_jax.layers import ConvKind, prism
from deepprism_jax.losses import discriminator_loss, generator_loss, r1_penalty
from deepprism_jax.models.discriminator import PatchDiscriminator, default_layers

KINDS = get_args(ConvKind)


def make(**options):
    small = {"width": 8, "layers": 2, "groups": 4, "rank": 4, "rngs": nnx.Rngs(0)}
    return PatchDiscriminator(**(small | options))


def images(seed, shape=(2, 8, 8, 3)):
    return jax.random.uniform(jax.random.key(seed), shape, minval=-1.0, maxval=1.0)


def functional(**options):
    """The discriminator as training uses it: (params, images) -> logits, and params."""
    graph, params, rest = nnx.split(make(**options), nnx.Param, ...)

    def apply(params, x):
        return nnx.merge(graph, params, rest)(x)

    return apply, params


def abstract(**options):
    """The discriminator with shapes in the place of numbers: nothing is compiled."""
    return nnx.eval_shape(lambda: make(**options))


def logits_shape(shape, **options):
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(lambda x: make(**options)(x), image).shape


@pytest.mark.parametrize("conv", KINDS)
def test_maps_images_to_one_logit_a_patch(conv):
    assert logits_shape((2, 16, 12, 3), conv=conv) == (2, 4, 3, 1)


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        # in 4x4x3xW + W; hidden 9 C C' (27 for a prism), norms 2 C'; out 9 C + 1.
        (
            {"conv": "dense", "width": 64, "layers": 3},
            (48 * 64 + 64)
            + 9 * (64 * 128 + 128 * 256 + 256 * 512)
            + 2 * (128 + 256 + 512)
            + (9 * 512 + 1),
        ),
        (
            {"conv": "deepprism", "width": 64, "layers": 3},
            (48 * 64 + 64) + 3 * (27 + 2 * 64) + (9 * 64 + 1),
        ),
        (
            {"conv": "deepprism", "width": 64, "layers": 2, "fields": 4},
            (48 * 64 + 64) + 2 * (27 * 16 + 2 * 64) + (9 * 64 + 1),
        ),
    ],
    ids=["dense", "deepprism", "four fields"],
)
def test_parameter_counts(options, parameters):
    leaves = jax.tree.leaves(nnx.state(abstract(**options), nnx.Param))
    assert sum(leaf.size for leaf in leaves) == parameters


def test_widths_double_up_to_eight_times_where_weights_grow():
    hidden = abstract(layers=5, width=4).hidden
    channels = [layer.norm.scale.shape for layer in hidden]
    assert channels == [(8,), (16,), (32,), (32,), (32,)]


@pytest.mark.parametrize("conv", ["channel", "prism_separable", "deepprism"])
def test_a_kind_that_keeps_its_channels_keeps_the_width(conv):
    hidden = abstract(conv=conv).hidden
    assert [layer.norm.scale.shape for layer in hidden] == [(8,), (8,)]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_logit_sees_the_patch_that_is_promised(layers):
    """By the input gradient of one logit in the middle, through positive kernels."""
    graph, shapes = nnx.split(abstract(layers=layers, width=2, image_channels=1))
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)
    network = nnx.merge(graph, ones)
    size = 12 * 2**layers
    middle = size // 2**layers // 2

    def logit(x):
        x = network.conv_in(x)
        for layer in network.hidden:  # norms would make every pixel matter
            x = layer.conv(x)
        return network.conv_out(x)[0, middle, middle, 0]

    seen = jax.jit(jax.grad(logit))(jnp.ones((1, size, size, 1)))[0, ..., 0]
    rows = np.flatnonzero(np.any(seen, axis=1))
    assert rows[-1] - rows[0] + 1 == 6 * 2**layers


@pytest.mark.parametrize(
    ("size", "layers"), [(16, 2), (32, 2), (33, 3), (256, 3), ((32, 64), 2)]
)
def test_default_layers(size, layers):
    assert default_layers(size) == layers


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_smallest_image(layers):
    least = 2 ** (layers + 1)
    assert logits_shape((1, least, least, 3), layers=layers) == (1, 2, 2, 1)
    message = (
        f"layers={layers} needs images of at least {least}x{least}, got {least - 1}x"
    )
    with pytest.raises(ValueError, match=message):
        logits_shape((1, least - 1, least, 3), layers=layers)


def test_the_remedy_for_a_small_image_works():
    with pytest.raises(ValueError, match="use layers=2 or larger images"):
        logits_shape((1, 8, 8, 3), layers=3)
    assert logits_shape((1, 8, 8, 3), layers=2) == (1, 2, 2, 1)


def test_refuses_no_layers():
    with pytest.raises(ValueError, match="layers=0 must be at least 1"):
        make(layers=0)


@pytest.mark.parametrize(
    ("width", "groups"), [(64, 32), (8, 4), (6, 3), (1, 1), (7, 1)]
)
def test_norm_groups_fit_the_width(width, groups):
    network = abstract(conv="channel", width=width)
    assert network.hidden[0].norm.groups == groups


def test_images_do_not_see_each_other():
    network = jax.jit(make(conv="deepprism"))
    pair = images(0)
    other = pair.at[1].set(3.0 * images(1)[1])
    np.testing.assert_array_equal(network(pair)[0], network(other)[0])


def test_computes_in_bfloat16_and_answers_in_float32():
    exact = jax.jit(make(conv="deepprism"))(images(0))
    network = make(conv="deepprism", dtype="bfloat16")
    params = jax.tree.leaves(nnx.state(network, nnx.Param))
    assert all(leaf.dtype == jnp.float32 for leaf in params)
    logits = jax.jit(network)(images(0))
    assert logits.dtype == jnp.float32
    assert np.any(logits != exact)
    np.testing.assert_allclose(logits, exact, atol=0.1)


@pytest.mark.parametrize("conv", ["dense", "deepprism"])
def test_each_player_trains_its_own_network(conv):
    """D learns and stops at the reconstruction, which learns by D to look real."""
    apply, params = functional(conv=conv, layers=1)
    real, fake = images(0), images(1)

    def discriminator(params, fake):
        fake = jax.lax.stop_gradient(fake)
        logits = apply(params, real), apply(params, fake)
        return discriminator_loss(*logits, "nonsaturating")

    to_params, to_fake = jax.jit(jax.grad(discriminator, argnums=(0, 1)))(params, fake)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(to_params))
    assert not to_fake.any()

    def generator(fake):
        return generator_loss(apply(jax.lax.stop_gradient(params), fake))

    step = jax.jit(jax.value_and_grad(generator))
    before, to_fake = step(fake)
    after, _ = step(fake - 0.01 * to_fake / np.linalg.norm(to_fake))
    assert after < before


@pytest.mark.slow
def test_r1_trains_a_prism_discriminator(monkeypatch):
    """Second derivatives equal those through the definition of the convolution."""
    apply, params = functional(conv="deepprism", width=4)
    x = images(0)

    def penalty(params):
        return r1_penalty(lambda x: apply(params, x), x)

    value, gradient = jax.jit(jax.value_and_grad(penalty))(params)
    reference = partial(prism.prism_conv, method="reference")
    monkeypatch.setattr(prism, "prism_conv", reference)
    expected = jax.jit(jax.value_and_grad(lambda p: penalty(p)))(params)
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    for leaf, other in zip(*map(jax.tree.leaves, (gradient, expected[1])), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-3, atol=1e-4)
    kernels = [leaf for leaf in jax.tree.leaves(gradient) if leaf.ndim == 5]
    assert kernels
    assert all(np.any(kernel != 0) for kernel in kernels)
