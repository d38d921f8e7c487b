"""The single-image denoiser: exact counts, what it sees, and what moves it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deepprism_jax.layers.embedding import sinusoidal
from deepprism_jax.layers.functional import Functional, values_of
from deepprism_jax.models.sinddm import RECEPTIVE_FIELD, SinDDM


def count(**options):
    shapes = Functional(
        nnx.eval_shape(lambda: SinDDM(**options, rngs=nnx.Rngs(0)))
    ).shapes
    times = sum(
        x.size
        for name, x in shapes.items()
        if name.startswith("embedding") or "condition" in name
    )
    return sum(x.size for x in shapes.values()), times


def test_parameters_are_those_of_the_official_network_and_of_the_paper():
    total, _ = count(conv="dense", half_ends=True)
    assert total == 1_106_772
    total, times = count()
    assert total - times == 18_357
    dense, times = count(conv="dense")
    assert round((dense - times) / 18_357) == 89


def small(**options):
    model = SinDDM(**{"width": 8, "embedding": 8, **options}, rngs=nnx.Rngs(0))
    # At first it is zero, and nothing before it matters.
    kernel = model.conv_out.kernel
    kernel[...] = jax.random.normal(jax.random.key(1), kernel.shape)
    return model


@pytest.fixture(scope="module")
def deepprism():
    network = Functional(small())
    return jax.jit(lambda *inputs: network.bind(values_of(small()))(*inputs))


@pytest.mark.slow
def test_time_and_scale_change_the_prediction(deepprism):
    x = jax.random.normal(jax.random.key(0), (1, 6, 9, 3))

    def at(t, scale):
        return np.asarray(deepprism(x, jnp.array([t]), jnp.array([scale])))

    assert at(0, 0).shape == x.shape
    assert at(0, 0).dtype == np.float32
    assert np.abs(at(0, 0) - at(50, 0)).max() > 1e-4
    assert np.abs(at(0, 0) - at(0, 3)).max() > 1e-4


@pytest.mark.slow
def test_a_pixel_sees_the_receptive_field_and_no_more():
    model = small(conv="dense")
    side = RECEPTIVE_FIELD + 6
    x = jax.random.normal(jax.random.key(0), (1, side, side, 3))
    zero = jnp.array([0])
    middle = side // 2
    gradient = jax.jit(
        jax.grad(lambda x: model(x, zero, zero)[0, middle, middle].sum())
    )(x)
    seen = np.flatnonzero(np.abs(gradient).sum((0, 2, 3)))
    assert seen[-1] - seen[0] + 1 == RECEPTIVE_FIELD


@pytest.mark.slow
def test_every_parameter_is_trained():
    model = small(conv="dense", image_channels=1)
    network = Functional(model)
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))

    def loss(values):
        y = network.bind(values)(x, jnp.array([3, 9]), jnp.array([0, 1]))
        return jnp.mean(y**2)

    for name, gradient in jax.jit(jax.grad(loss))(values_of(model)).items():
        assert np.abs(gradient).max() > 0, name


def test_embeddings_are_sines_and_cosines():
    found = sinusoidal(jnp.array([3.0]), 6)
    rates = np.array([1.0, 1e-2, 1e-4])
    expected = np.concatenate([np.sin(3 * rates), np.cos(3 * rates)])
    np.testing.assert_allclose(found[0], expected, atol=1e-6)
    with pytest.raises(ValueError, match="channels=7 must be even"):
        sinusoidal(jnp.array([3.0]), 7)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"width": 0}, "width=0 must be at least 1"),
        ({"width": 9, "half_ends": True}, "half_ends halves width=9"),
    ],
)
def test_what_cannot_be_made_is_refused(options, says):
    with pytest.raises(ValueError, match=says):
        small(**options)
