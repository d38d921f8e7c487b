"""The depthwise convolution, in C++ where it can be built, against sums in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from deepprism_jax.ops.grouped import grouped_conv
from deepprism_jax.ops.plain_conv import plain_conv
from deepprism_jax.training.sharding import make_mesh


def operands(size, *shape, dtype=jnp.float32):
    """A feature map, a kernel and a gradient of the result."""
    rng = np.random.default_rng(0)
    shapes = shape, (*shape[:-4], size, size, 1, shape[-1]), shape
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


@pytest.fixture(params=["built", "without"])
def either(request):
    """With the kernels, then without."""
    if request.param == "built":
        request.getfixturevalue("native")


def maps(x, kernel, g):
    """The convolution and both gradients."""
    y, pull = jax.vjp(partial(grouped_conv, groups=x.shape[-1]), x, kernel)
    return y, *pull(g)


def exact(*given):
    """The same, tap by tap."""
    x, kernel, g = (np.asarray(a, np.float64) for a in given)
    size, (height, width) = len(kernel), x.shape[1:3]
    edge = [(0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0)]
    x, dx = np.pad(x, edge), np.pad(np.zeros_like(x), edge)
    y, dkernel = np.zeros_like(g), np.zeros_like(kernel)
    for i, j in np.ndindex(size, size):
        window = np.s_[:, i : i + height, j : j + width]
        y += x[window] * kernel[i, j, 0]
        dx[window] += g * kernel[i, j, 0]
        dkernel[i, j, 0] = (x[window] * g).sum((0, 1, 2))
    half = size // 2
    return y, dx[:, half : half + height, half : half + width], dkernel


def compare(found, wanted, digits=1e-6):
    for value, expected in zip(found, wanted, strict=True):
        assert value.shape == expected.shape
        size = np.abs(expected).max(initial=1.0)
        np.testing.assert_allclose(value, expected, rtol=0, atol=digits * size)


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        (3, (2, 7, 9, 16)),
        (5, (1, 1, 8, 40)),  # lower than the kernel, with some lanes left over
        (5, (3, 4, 1, 3)),  # narrower, and fewer channels than lanes
        (3, (2, 40, 17, 35)),  # several pieces, one of them on both images
        (5, (0, 4, 4, 16)),
        (5, (6, 33, 32, 32)),  # enough work for several threads
    ],
)
def test_is_the_convolution_with_its_gradients_on_every_run(native, size, shape):
    given = operands(size, *shape)
    run = jax.jit(maps)
    found = run(*given)
    compare(found, exact(*given))
    for one, other in zip(found, run(*given), strict=True):
        np.testing.assert_array_equal(one, other)


def test_bfloat16_is_rounded_once(native):
    short = operands(5, 2, 6, 9, 20, dtype=jnp.bfloat16)
    wide = jax.jit(maps)(*(a.astype(jnp.float32) for a in short))
    for value, expected in zip(jax.jit(maps)(*short), wide, strict=True):
        assert value.dtype == jnp.bfloat16
        np.testing.assert_array_equal(value, expected.astype(jnp.bfloat16))


def test_cpu_programs_call_it_where_it_takes_a_shape(native):
    def calls(size, strides=1, dtype=jnp.float32, platform="cpu"):
        x, kernel, _ = operands(size, 1, 4, 4, 5, dtype=dtype)
        traced = jax.jit(partial(grouped_conv, groups=5, strides=strides)).trace
        lowered = traced(x, kernel).lower(lowering_platforms=(platform,))
        return "deepprism_depthwise" in lowered.as_text()

    assert calls(3)
    assert calls(5, dtype=jnp.bfloat16)
    assert not calls(7)
    assert not calls(3, strides=2)
    assert not calls(3, dtype=jnp.float16)
    assert not calls(5, platform="tpu")


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
def test_models_side_by_side_have_their_own_kernels_in_one_call(native, axes):
    program = check_models(5, axes)
    assert "while(" not in program


def test_models_side_by_side_without_the_kernels():
    check_models(3, (0, 0))


def check_models(size, axes):
    """Compare two models under `jax.vmap`; return the text of the program."""
    x, kernels, g = operands(size, 2, 2, 5, 11, 20)
    given = [
        a if axis == 0 else a[0] for a, axis in zip((x, kernels), axes, strict=True)
    ]
    run = jax.jit(jax.vmap(maps, in_axes=(*axes, 0))).lower(*given, g).compile()
    for n, found in enumerate(zip(*run(*given, g), strict=True)):
        one = [a[n] if axis == 0 else a for a, axis in zip(given, axes, strict=True)]
        compare(found, exact(*one, g[n]))
    return str(run.as_text())


def test_second_derivatives_are_those_of_the_plain_convolution(either):
    x, kernel, g = operands(3, 2, 4, 5, 6)

    def measure(conv, x, kernel):
        y, pull = jax.vjp(conv, x, kernel)
        return sum(jnp.sum(part**3) for part in (y, *pull(g)))

    found, wanted = (
        jax.jit(jax.grad(partial(measure, conv), (0, 1)))(x, kernel)
        for conv in (
            partial(grouped_conv, groups=6),
            partial(plain_conv, groups=6, strides=1),
        )
    )
    compare(found, wanted, digits=5e-6)


def test_a_shared_kernel_has_the_sum_of_the_gradients_inside_shard_map(native):
    given = operands(5, 4, 3, 3, 16)
    split, whole = PartitionSpec("data"), PartitionSpec()
    spread = jax.shard_map(
        maps,
        mesh=make_mesh(),
        in_specs=(split, whole, split),
        out_specs=(split, split, whole),
    )
    compare(jax.jit(spread)(*given), exact(*given))


def test_what_no_number_is_stays_none_and_spreads_no_further(native):
    x, kernel, _ = operands(3, 1, 5, 5, 4, dtype=jnp.bfloat16)
    y = grouped_conv(x.at[0, 2, 2, 1].set(jnp.nan), kernel, groups=4)
    missing = np.zeros((1, 5, 5, 4), bool)
    missing[:, 1:4, 1:4, 1] = True
    np.testing.assert_array_equal(jnp.isnan(y), missing)
