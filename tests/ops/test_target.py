import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deepprism_jax.layers import ResBlock, Upsample, conv_factory
from deepprism_jax.ops import prism_conv, target


def lowered(platform, channels, block):
    """A block's gradient, traced and lowered for a platform that is not there."""
    conv = conv_factory("deepprism")
    options = {"norm_groups": 4} if block is ResBlock else {}
    block = block(channels, conv=conv, rngs=nnx.Rngs(0), **options)
    x = jax.ShapeDtypeStruct((2, 4, 4, channels), jnp.float32)
    with target.compiling_for(platform):
        traced = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(block(x))))).trace(x)
    return traced.lower(lowering_platforms=(platform,)).as_text()


# Forward and backward, of two half-blocks or of one convolution.
@pytest.mark.parametrize(
    ("block", "channels", "kernels"),
    [(ResBlock, 128, 4), (ResBlock, 64, 0), (Upsample, 128, 2), (Upsample, 64, 0)],
)
def test_tpus_take_the_fused_kernels_where_they_fit(block, channels, kernels):
    # Functions of one shape are compiled once and called by all.
    text = lowered("tpu", channels, block)
    assert len(re.findall(r"call @_?(forward|backward)", text)) == kernels
    assert ("tpu_custom_call" in text) == (kernels > 0)


def test_the_platform_is_that_of_jax_unless_said():
    assert target.platform() == jax.default_backend()
    with target.compiling_for("tpu"):
        assert target.platform() == "tpu"
    assert target.platform() == jax.default_backend()


@pytest.mark.slow
def test_a_convolution_meant_for_tpus_runs_elsewhere_too():
    x, kernel = jnp.cos(jnp.arange(1536.0)).reshape(1, 3, 4, 128), jnp.ones((3,) * 3)
    kernel, bias = kernel.at[0].set(-0.5)[..., None, None], jnp.full((1,), 0.25)

    def measure(*operands):
        return jnp.sum(jnp.sin(prism_conv(*operands)))

    def penalty(*operands):  # second derivatives
        return sum(jnp.sum(g**2) for g in jax.grad(measure, (0, 1, 2))(*operands))

    def gradients():
        return jax.grad(penalty, (0, 1, 2))(x, kernel, bias)

    wanted = gradients()
    with target.compiling_for("tpu"):
        found = gradients()
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())
