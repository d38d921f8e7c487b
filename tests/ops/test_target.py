import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from deepprism_jax.layers import ResBlock, conv_factory
from deepprism_jax.ops import target


def lowered(platform, channels):
    """A block's gradient, traced and lowered for a platform that is not there."""
    conv = conv_factory("deepprism")
    block = ResBlock(channels, conv=conv, norm_groups=4, rngs=nnx.Rngs(0))
    x = jax.ShapeDtypeStruct((2, 4, 4, channels), jnp.float32)
    with target.compiling_for(platform):
        traced = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(block(x))))).trace(x)
    return traced.lower(lowering_platforms=(platform,)).as_text()


# Two half-blocks, forward and backward.
@pytest.mark.parametrize(("channels", "kernels"), [(128, 4), (64, 0)])
def test_tpus_take_the_fused_kernels_where_they_fit(channels, kernels):
    # Functions of one shape are compiled once and called by both halves.
    text = lowered("tpu", channels)
    assert text.count("call @forward") + text.count("call @backward") == kernels
    assert ("tpu_custom_call" in text) == (kernels > 0)


def test_the_platform_is_that_of_jax_unless_said():
    assert target.platform() == jax.default_backend()
    with target.compiling_for("tpu"):
        assert target.platform() == "tpu"
    assert target.platform() == jax.default_backend()
