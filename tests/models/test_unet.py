"""The U-Net: exact counts, diffusers' numbers, and what may be left out."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import unet_weights
from flax import nnx

from deepprism_jax.layers import PrismConv, remat
from deepprism_jax.layers.condition import DenseCondition, PrismCondition
from deepprism_jax.layers.functional import Functional, values_of
from deepprism_jax.models.unet import UNet

GOLDEN = Path(__file__).parent / "golden" / "unet.npz"
TINY = {
    "width": 8,
    "multipliers": (1, 2),
    "blocks": 1,
    "attention": (2,),
    "heads": 2,
    "norm_groups": 4,
}

FLAT = TINY | {"multipliers": (1,), "attention": ()}
"""Of one level, which compiles in less time."""


def structure(**options):
    return Functional(nnx.eval_shape(lambda: UNet(**options, rngs=nnx.Rngs(0))))


def random_values(network, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(rng.normal(size=value.shape) * 0.4, jnp.float32)
        for name, value in network.shapes.items()
    }


@pytest.mark.parametrize(
    ("options", "total", "of_time"),
    [
        ({"conv": "dense"}, 37_624_067, 5_773_568),
        ({"conv": "deepprism"}, 5_817_357, 5_773_568),
        ({"conv": "deepprism", "time_conv": "prism"}, 48_822, 5_033),
    ],
)
def test_parameters_are_those_of_the_paper(options, total, of_time):
    network = structure(**options)
    sizes = {name: network.shapes[name].size for name in network.parameters}
    assert sum(sizes.values()) == total
    assert sum(n for name, n in sizes.items() if "condition" in name) == of_time
    assert network.buffers == ["latent_mean", "latent_std"]


@pytest.mark.slow
def test_no_layer_grows_with_the_square_of_the_width():
    options = {"multipliers": (1, 2, 3), "time_conv": "prism", "classes": 10}
    network = structure(**options, width=64, fields=2)
    for name in network.parameters:
        if not name.startswith(("conv_", "condition.labels")):
            # Norms over 3 + 3 widths; 6 + 6 fields to 6.
            assert network.shapes[name].size <= max(6 * 64, 27 * 12 * 6), name
    x, t = jnp.zeros((2, 12, 20, 3)), jnp.zeros(2)
    y = jax.eval_shape(lambda v: network.bind(v)(x, t), network.shapes)
    assert y.shape == x.shape


@pytest.mark.parametrize(
    "norm", ["default", pytest.param("scale_shift", marks=pytest.mark.slow)]
)
def test_dense_it_computes_what_diffusers_does(norm):
    network = structure(
        **TINY, conv="dense", classes=3, scale_shift=norm == "scale_shift"
    )
    values: dict = {"latent_mean": jnp.zeros(3), "latent_std": jnp.ones(3)}
    for name in network.parameters:
        theirs = unet_weights.diffusers_name(name)
        shape = network.shapes[name].shape
        if len(shape) == 1 or "labels" in name:
            values[name] = unet_weights.tensor(theirs, shape)
        elif ".attention.attention." in name or "condition" in name:
            weight = unet_weights.tensor(theirs, shape[:-3:-1])
            values[name] = weight.T.reshape(shape)
        else:
            weight = unet_weights.tensor(theirs, (*shape[:1:-1], *shape[:2]))
            values[name] = weight.transpose(2, 3, 1, 0)
    x, t, labels = map(jnp.asarray, unet_weights.inputs())
    y = jax.jit(lambda v: network.bind(v)(x, t, labels))(values)
    with np.load(GOLDEN) as golden:
        np.testing.assert_allclose(y, golden[norm], atol=1e-5)


@pytest.fixture(scope="module")
def small():
    """A U-Net of classes, quick to compile, its values and its prediction."""
    network = structure(**TINY, conv="dense", classes=3, dropout=0.5)
    values = random_values(network)

    @jax.jit
    def predict(x, t, labels, keys):
        return network.bind(values)(x, t, labels, dropout_keys=keys)

    return network, values, predict


X = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
T = jnp.array([3, 640])


@pytest.mark.parametrize(
    "made",
    [DenseCondition, pytest.param(PrismCondition, marks=pytest.mark.slow)],
)
def test_the_class_past_the_last_is_none(made):
    condition = made(8, 3, rngs=nnx.Rngs(0))
    plain = condition(T, None)
    y = condition(T, jnp.array([0, 3]))
    assert np.abs(y - plain)[0].max() > 1e-3
    np.testing.assert_array_equal(y[1], plain[1])
    assert np.abs(condition(T + 40, None) - plain).max() > 1e-3


@pytest.mark.slow
def test_time_and_class_change_the_prediction(small):
    *_, predict = small
    plain = predict(X, T, None, None)
    assert plain.dtype == jnp.float32
    y = predict(X, T, jnp.array([0, 3]), None)
    assert np.abs(y - plain)[0].max() > 1e-3
    np.testing.assert_allclose(y[1], plain[1], atol=1e-5)
    later = predict(X, T + 40, None, None)
    assert (np.abs(later - plain).max((1, 2, 3)) > 1e-3).all()


@pytest.mark.slow
def test_what_is_dropped_is_of_the_key_of_an_image(small):
    *_, predict = small
    x, t = jnp.stack([X[0]] * 2), jnp.stack([T[0]] * 2)
    a, b = jax.random.split(jax.random.key(0))
    first, other = predict(x, t, None, jnp.stack([a, b]))
    assert np.abs(first - other).max() > 1e-3
    assert np.abs(first - predict(x, t, None, None)[0]).max() > 1e-3
    np.testing.assert_array_equal(predict(x, t, None, jnp.stack([b, a]))[1], first)


@pytest.mark.slow
@pytest.mark.parametrize("scale_shift", [False, True])
def test_time_rides_on_fused_half_blocks(monkeypatch, scale_shift):
    """With kernels and without, kept or computed again: one gradient."""
    options = {"time_conv": "prism", "scale_shift": scale_shift, "fields": 2}
    network = structure(**FLAT | options)
    values = random_values(network)

    def loss(values):
        return (network.bind(values)(X, T) ** 2).mean()

    found = []
    ways: tuple[tuple[bool, remat.Remat], ...] = (
        *((False, "none"), (True, "none"), (True, "blocks")),
    )
    for fuses, policy in ways:
        monkeypatch.setattr(PrismConv, "fuses", lambda *_, fuses=fuses: fuses)
        with remat.rematerializing(policy):
            found.append(jax.jit(jax.value_and_grad(lambda v: loss(v)))(values))
    (expected, gradient), *others = found
    largest = max(np.abs(g).max() for g in gradient.values())
    for value, other in others:
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        for name in network.parameters:
            difference = np.abs(other[name] - gradient[name]).max()
            assert difference < 1e-5 * largest, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("conv", "time_conv"), [("dense",) * 2, ("deepprism", "prism")]
)
def test_every_parameter_is_trained(conv, time_conv):
    # One group over two fields: else the norms take away what biases add.
    options = FLAT | {"norm_groups": 1, "fields": 2, "classes": 3}
    network = structure(**options, conv=conv, time_conv=time_conv)
    values = random_values(network)

    def loss(values):
        return (network.bind(values)(X, T, jnp.array([0, 1])) ** 2).mean()

    gradients = jax.jit(jax.grad(loss))(values)
    for name in network.parameters:
        # One number on all keys changes no softmax.
        if not name.endswith("key.bias"):
            assert np.abs(gradients[name]).max() > 1e-5, name


@pytest.mark.slow
def test_at_first_residual_blocks_add_nothing_and_the_prediction_is_zero():
    values = jax.jit(lambda: values_of(UNet(**FLAT, rngs=nnx.Rngs(0))))()
    zero = {name for name, x in values.items() if "kernel" in name and not np.any(x)}
    assert zero == {
        name
        for name in values
        if name.endswith(("conv2.kernel", "output.kernel", "conv_out.kernel"))
    }


@pytest.mark.slow
def test_bfloat16_is_near_float32():
    x = jnp.tile(X, (1, 2, 2, 1))
    exact, coarse = (
        structure(**FLAT, time_conv="prism", dtype=dtype)
        for dtype in (jnp.float32, "bfloat16")
    )
    values = random_values(exact)
    a, b = (
        jax.jit(lambda network=n: network.bind(values)(x, T)) for n in (exact, coarse)
    )
    a, b = a(), b()
    assert b.dtype == jnp.float32
    assert np.abs(a - b).max() < 0.1 * np.abs(a).max()


def test_latents_are_normalised_and_back(small):
    network, values, _ = small
    mean, std = jnp.array([1.0, 2.0, 3.0]), jnp.array([2.0, 4.0, 8.0])
    model = network.bind(values | {"latent_mean": mean, "latent_std": std})
    z = jnp.full((1, 2, 2, 3), 5.0)
    np.testing.assert_allclose(model.normalize(z)[0, 0, 0], [2.0, 0.75, 0.25])
    np.testing.assert_allclose(model.denormalize(model.normalize(z)), z)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"attention": (3,)}, "attention=3 is no downsampling factor of 2 levels"),
        ({"multipliers": ()}, "number of multipliers=0 must be at least 1"),
        ({"dropout": 1.0}, r"dropout=1.0 must lie in \[0, 1\)"),
        ({"fields": 3}, "fields=3 must divide width=8"),
        ({"width": 9}, "width=9 must be even"),
        ({"conv": "channel"}, "use 'deepprism'"),
    ],
)
def test_what_cannot_be_made_is_refused(options, says):
    with pytest.raises(ValueError, match=says):
        structure(**TINY | options)


def test_what_does_not_fit_is_refused():
    model = nnx.eval_shape(lambda: UNet(**TINY, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"latent size 5x7 .* the nearest .*: 4x8"):
        model(jnp.zeros((1, 5, 7, 3)), T[:1])
    with pytest.raises(ValueError, match="latents have 4 channels"):
        model(jnp.zeros((1, 4, 4, 4)), T[:1])
    with pytest.raises(ValueError, match="unconditional"):
        model(X, T, jnp.array([0, 1]))
