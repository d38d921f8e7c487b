import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deepprism_jax.layers import Attention, PrismAttention, conv_factory


def softmax_attention(q, k, v):
    """Eq. (4) in float64, one head at a time."""
    q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
    y = np.empty_like(v)
    for b in range(q.shape[0]):
        for head in range(q.shape[2]):
            scores = q[b, :, head] @ k[b, :, head].T / np.sqrt(q.shape[3])
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            y[b, :, head] = weights @ v[b, :, head]
    return y


@pytest.mark.parametrize("heads", [1, 2])
def test_module_projects_attends_and_projects(heads):
    attention = Attention(8, heads=heads, conv=conv_factory("dense"), rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(2, 3, 2, 8)).astype(np.float32)

    def project(layer, x):
        return x @ np.asarray(layer.kernel[...])[0, 0] + np.asarray(layer.bias[...])

    q, k, v = (
        project(layer, x.reshape(2, 6, 8)).reshape(2, 6, heads, 8 // heads)
        for layer in (attention.query, attention.key, attention.value)
    )
    y = softmax_attention(q, k, v).reshape(2, 3, 2, 8)
    expected = project(attention.output, y)
    np.testing.assert_allclose(
        attention(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-5
    )


def test_many_positions_take_no_matrix_of_pairs():
    attention = PrismAttention(4, rngs=nnx.Rngs(0))

    def pairs(height):
        image = jax.ShapeDtypeStruct((height, 64, 4), jnp.float32)
        text = str(jax.make_jaxpr(attention)(image))
        return f"{64 * height},{64 * height}]" in text

    assert pairs(16)
    assert not pairs(32)


@pytest.mark.parametrize("batch", [(), (2, 3)], ids=str)
@pytest.mark.parametrize("heads", [1, 4])
def test_any_number_of_batch_axes(batch, heads):
    def run(x):
        return PrismAttention(8, heads=heads, rngs=nnx.Rngs(0))(x)

    shape = (*batch, 4, 6, 8)
    assert jax.eval_shape(run, jax.ShapeDtypeStruct(shape, jnp.float32)).shape == shape


def test_prism_attention_has_16_parameters():
    attention = jax.eval_shape(
        lambda: nnx.state(PrismAttention(256, heads=8, rngs=nnx.Rngs(0)))
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(attention)) == 16


def test_prism_attention_passes_its_topology_and_type_on():
    attention = PrismAttention(
        8, channel_padding="zero", dtype=jnp.bfloat16, rngs=nnx.Rngs(0)
    )
    for layer in (attention.query, attention.key, attention.value, attention.output):
        assert layer.channel_padding == "zero"
        assert layer.dtype == jnp.bfloat16


@pytest.mark.parametrize("heads", [0, 3])
def test_heads_must_divide_the_channels(heads):
    message = f"heads={heads} must divide C=8; choose one of [1, 2, 4, 8]"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        PrismAttention(8, heads=heads, rngs=nnx.Rngs(0))
