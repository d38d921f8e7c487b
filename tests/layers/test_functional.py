import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deepprism_jax.layers import ResBlock, conv_factory
from deepprism_jax.layers.functional import Functional, values_of
from deepprism_jax.models.codebook import Codebook

NAMES = {
    "norm1.scale",
    "norm1.bias",
    "conv1.kernel",
    "conv1.bias",
    "norm2.scale",
    "norm2.bias",
    "conv2.kernel",
    "conv2.bias",
}


@pytest.fixture(scope="module")
def block():
    conv = conv_factory("channel")
    return ResBlock(8, conv=conv, norm_groups=4, rngs=nnx.Rngs(0))


def test_values_are_flat_and_named_by_their_path(block):
    values = values_of(block)
    assert set(values) == NAMES
    np.testing.assert_array_equal(values["conv1.kernel"], block.conv1.kernel[...])


def test_shapes_describe_the_values_also_of_an_abstract_module(block):
    def make():
        conv = conv_factory("channel")
        return ResBlock(8, conv=conv, norm_groups=4, rngs=nnx.Rngs(0))

    expected = {
        name: jax.ShapeDtypeStruct(value.shape, value.dtype)
        for name, value in values_of(block).items()
    }
    assert Functional(block).shapes == expected
    assert Functional(nnx.eval_shape(make)).shapes == expected


def test_bound_values_are_the_ones_used(block):
    functional = Functional(block)
    values = values_of(block)
    bound = functional.bind({name: value + 1.0 for name, value in values.items()})
    for name, value in values_of(bound).items():
        np.testing.assert_array_equal(value, values[name] + 1.0)
    # The first module is left alone.
    np.testing.assert_array_equal(block.conv1.kernel[...], values["conv1.kernel"])


def test_lists_of_modules_are_numbered():
    class Pair(nnx.Module):
        def __init__(self):
            self.body = nnx.List([nnx.Param(jnp.ones(i + 1)) for i in range(2)])

    functional = Functional(Pair())
    assert set(functional.shapes) == {"body.0", "body.1"}
    values = {"body.0": jnp.zeros(1), "body.1": jnp.zeros(2)}
    assert functional.bind(values).body[1].shape == (2,)


def test_gradients_flow_to_every_value(block):
    functional = Functional(block)
    x = jax.random.normal(jax.random.key(0), (1, 2, 2, 8))

    @jax.jit
    def gradient(values):
        return jax.grad(lambda values: jnp.sum(functional.bind(values)(x) ** 2))(values)

    gradients = gradient(values_of(block))
    assert set(gradients) == NAMES
    # GroupNorm takes out what is added to all channels alike.
    dead = {name for name, g in gradients.items() if np.abs(g).max() < 1e-4}
    assert dead == {"conv1.bias"}


@pytest.mark.parametrize(
    ("update", "parameters", "buffers"),
    [("ema", set(), {"codes", "usage"}), ("gradient", {"codes"}, {"usage"})],
)
def test_parameters_are_trained_and_buffers_are_not(update, parameters, buffers):
    functional = Functional(
        nnx.eval_shape(lambda: Codebook(4, 2, update=update, rngs=nnx.Rngs(0)))
    )
    assert set(functional.parameters) == parameters
    assert set(functional.buffers) == buffers


def test_names_must_be_exactly_the_modules(block):
    values = values_of(block)
    del values["conv1.bias"], values["conv1.kernel"]
    values["conv3.bias"] = jnp.zeros(1)
    message = (
        "values do not fit the module: 2 missing ['conv1.bias', 'conv1.kernel'], "
        "1 unknown ['conv3.bias']"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Functional(block).bind(values)
