"""Against XLA's own grouped convolution, which every platform but CPUs runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from deepprism_jax.ops.grouped import grouped_conv


def expected(x, kernel, groups, strides):
    half = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        [(half, half)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def operands(channels, groups, size=3, batch=2):
    c_in, c_out = channels
    rng = np.random.default_rng(0)
    shapes = (batch, 5, 6, c_in), (size, size, c_in // groups, c_out)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


CASES = [
    ((4, 6), 1, 3, 2),
    ((3, 12), 1, 3, 1),  # from an image
    ((12, 3), 1, 5, 1),  # to one
    ((12, 12), 1, 3, 1),
    ((4, 6), 2, 3, 1),
    ((8, 4), 4, 3, 2),
    ((4, 8), 4, 3, 1),  # two outputs a channel
    ((6, 6), 3, 1, 1),
    ((6, 6), 6, 3, 1),  # depthwise
    ((6, 6), 6, 5, 1),
    ((6, 6), 6, 5, 2),
    ((6, 6), 6, 1, 2),
]


@pytest.mark.parametrize(("channels", "groups", "size", "strides"), CASES)
def test_is_the_grouped_convolution_with_its_gradients(channels, groups, size, strides):
    x, kernel = operands(channels, groups, size)

    def both(conv):
        y, pull = jax.vjp(conv, x, kernel)
        return y, *pull(jnp.cos(y))

    found = jax.jit(
        lambda: both(lambda x, k: grouped_conv(x, k, groups=groups, strides=strides))
    )()
    wanted = jax.jit(lambda: both(lambda x, k: expected(x, k, groups, strides)))()
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [2, 8])
def test_the_cpu_program_has_no_grouped_convolution_and_others_have(groups):
    def gradients(x, kernel):
        y, pull = jax.vjp(lambda x, k: grouped_conv(x, k, groups=groups), x, kernel)
        return pull(y)

    def counts(platform):
        traced = jax.jit(gradients).trace(*operands((8, 8), groups))
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        names = ("batch_group_count", "feature_group_count")
        return [
            int(part.split()[0])
            for name in names
            for part in text.split(f"{name} = ")[1:]
        ]

    assert set(counts("cpu")) <= {1}
    assert groups in counts("tpu")


@pytest.mark.parametrize("groups", [2, 32])
def test_half_precision_is_kept_and_summed_in_float32(groups):
    x, kernel = (a.astype(jnp.bfloat16) for a in operands((32, 32), groups))
    y = grouped_conv(x, kernel, groups=groups)
    assert y.dtype == jnp.bfloat16
    exact = expected(*(a.astype(jnp.float32) for a in (x, kernel)), groups, 1)
    np.testing.assert_allclose(y, exact.astype(jnp.bfloat16), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("groups", [2, 8])
def test_a_shared_kernel_has_the_sum_of_the_gradients_inside_shard_map(groups):
    x, kernel = operands((8, 8), groups, batch=4)

    def gradient(x, kernel):
        return jax.grad(lambda k: jnp.sum(grouped_conv(x, k, groups=groups) ** 2))(
            kernel
        )

    spread = jax.shard_map(
        gradient,
        mesh=Mesh(np.array(jax.devices()[:4]), ("data",)),
        in_specs=(PartitionSpec("data"), PartitionSpec()),
        out_specs=PartitionSpec(),
    )
    whole, summed = jax.jit(lambda *a: (gradient(*a), spread(*a)))(x, kernel)
    np.testing.assert_allclose(summed, whole, rtol=1e-3, atol=1e-3)
