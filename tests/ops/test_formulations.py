"""Every formulation equals the reference, its derivatives, and when transformed."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from deepprism_jax.ops import prism_conv
from deepprism_jax.training.sharding import make_mesh

# Height, width, depth; kernel; channel padding; strides.
CASES = {
    "deepprism": ((5, 4, 5), (3, 3, 3, 1, 1), "circular", 1),
    "strided": ((5, 6, 4), (3, 3, 3, 1, 1), "replicate", 2),
    "more taps than channels": ((3, 2, 3), (1, 1, 7, 1, 1), "replicate", 1),
    "around more than once": ((2, 3, 2), (1, 1, 7, 1, 1), "circular", 1),
    "two fields to one": ((4, 3, 3), (3, 1, 3, 2, 1), "circular", (2, 1)),
    "one field to two": ((3, 5, 4), (1, 1, 3, 1, 2), "zero", 1),
    "fields to fields": ((3, 7, 2), (1, 3, 3, 2, 2), "replicate", (1, 3)),
    "dense": ((5, 4, 1), (3, 3, 1, 3, 1), "zero", 2),
    "larger than the image": ((2, 1, 3), (5, 3, 1, 1, 1), "zero", 1),
    "odd": ((7, 5, 33), (3, 3, 3, 1, 1), "replicate", 1),
    "one channel, one column": ((4, 1, 1), (3, 3, 3, 1, 1), "circular", 1),
    "two channels": ((1, 3, 2), (3, 3, 3, 1, 1), "replicate", 1),
    "four channels": ((2, 1, 4), (3, 3, 3, 1, 1), "zero", 2),
}


def random(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def operands(case):
    (height, width, depth), kernel, _, strides = CASES[case]
    rows, columns = (strides, strides) if isinstance(strides, int) else strides
    return (
        random(0, 2, height, width, kernel[3] * depth),
        random(1, *kernel),
        random(2, 2, -(-height // rows), -(-width // columns), kernel[4] * depth),
    )


def gradients(x, kernel, g, *, method, padding, strides):
    """The convolution and its two adjoints."""
    conv = partial(prism_conv, channel_padding=padding, strides=strides, method=method)
    y, pull = jax.vjp(conv, x, kernel)
    dx, dkernel = pull(g)
    return {"y": y, "dx": dx, "dkernel": dkernel}


def second_derivatives(x, kernel, g, **options):
    """Derivatives of something made of the convolution and its gradients."""

    def measure(*operands):
        return sum(
            jnp.sum(part**2) for part in gradients(*operands, **options).values()
        )

    return dict(enumerate(jax.grad(measure, (0, 1, 2))(x, kernel, g)))


def assert_equal_to_the_reference(derivatives, case, methods):
    *_, padding, strides = CASES[case]
    run = partial(derivatives, padding=padding, strides=strides)
    arguments = operands(case)
    reference = jax.jit(partial(run, method="reference"))(*arguments)
    for method in methods:
        result = jax.jit(partial(run, method=method))(*arguments)
        for name, expected in reference.items():
            size = np.abs(expected).max()
            np.testing.assert_allclose(result[name], expected, atol=3e-6 * size)


@pytest.mark.parametrize("case", CASES)
def test_formulations_equal_the_reference_with_both_gradients(case):
    methods = ("banded", "shift_and_add", "shifted", "stacked")
    assert_equal_to_the_reference(gradients, case, methods)


def test_default_method_equals_the_reference_with_both_gradients():
    assert_equal_to_the_reference(gradients, "deepprism", ("auto",))


@pytest.mark.parametrize("case", ["two fields to one", "more taps than channels"])
def test_second_derivatives_equal_those_of_the_reference(case):
    methods = ("banded", "shift_and_add")
    assert_equal_to_the_reference(second_derivatives, case, methods)


@pytest.mark.parametrize("method", ["banded", "shift_and_add"])
def test_vmap_over_kernels_and_over_both(method):
    x, kernels = random(0, 3, 2, 4, 3, 4), random(1, 3, 1, 1, 3, 1, 1)
    conv = partial(prism_conv, method=method)
    single = jax.jit(conv)
    expected = jnp.stack([single(x[0], kernel) for kernel in kernels])
    np.testing.assert_allclose(
        jax.jit(jax.vmap(conv, (None, 0)))(x[0], kernels), expected, atol=1e-5
    )

    def gradient(x, kernel):
        return jax.grad(lambda *a: jnp.sum(conv(*a) ** 2), (0, 1))(x, kernel)

    got = jax.jit(jax.vmap(gradient))(x, kernels)
    single = jax.jit(gradient)
    for n in range(3):
        expected = single(x[n], kernels[n])
        for part, wanted in zip(got, expected, strict=True):
            np.testing.assert_allclose(part[n], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "check_vma"), [("banded", True), ("auto", True), ("auto", False)]
)
def test_gradient_inside_shard_map(method, check_vma):
    mesh = make_mesh()
    x, kernel = random(0, 4, 3, 2, 4), random(1, 1, 3, 3, 1, 1)

    def loss(x, kernel):
        return jnp.sum(prism_conv(x, kernel, method=method) ** 2)

    def on_a_device(x, kernel):
        dx, dkernel = jax.grad(loss, (0, 1))(x, kernel)
        # With its checks on, JAX adds up the gradient of a shared kernel by itself.
        return dx, dkernel if check_vma else jax.lax.psum(dkernel, "data")

    shared, split = PartitionSpec(), PartitionSpec("data")
    spread = jax.shard_map(
        on_a_device,
        mesh=mesh,
        in_specs=(split, shared),
        out_specs=(split, shared),
        check_vma=check_vma,
    )
    got = jax.jit(spread)(x, kernel)
    expected = jax.jit(jax.grad(loss, (0, 1)))(x, kernel)
    for part, wanted in zip(got, expected, strict=True):
        np.testing.assert_allclose(part, wanted, rtol=1e-4, atol=1e-4)


def lowered(platform, fields):
    x, kernel = random(0, 2, 4, 3, 3 * fields), random(1, 1, 1, 3, fields, fields)
    gradient = jax.grad(lambda x, kernel: jnp.sum(prism_conv(x, kernel)), (0, 1))
    run = jax.jit(lambda x, kernel: (prism_conv(x, kernel), gradient(x, kernel)))
    program = run.trace(x, kernel).lower(lowering_platforms=(platform,))
    return program.as_text()


@pytest.mark.parametrize(
    ("platform", "fields", "convolutions"),
    [
        ("cpu", 1, 0),
        ("cpu", 4, 0),
        ("cpu", 5, 3),  # with so many pairs of fields the band is faster
        ("tpu", 1, 3),
        ("cuda", 1, 0),  # without taps in space nothing is worth a band
    ],
)
def test_the_platform_chooses_when_the_program_is_lowered(
    platform, fields, convolutions
):
    # Forward, input gradient and kernel gradient are a convolution each, or sums.
    assert lowered(platform, fields).count("stablehlo.convolution") == convolutions


def test_leading_axes_are_a_batch():
    x, kernel = random(0, 2, 3, 4, 3, 5), random(1, 1, 3, 3, 1, 1)
    conv = jax.jit(prism_conv)
    flat = conv(x.reshape(6, 4, 3, 5), kernel)
    np.testing.assert_array_equal(conv(x, kernel), flat.reshape(x.shape))
    np.testing.assert_array_equal(conv(x[0, 0], kernel), flat[0])


@pytest.mark.parametrize("method", ["reference", "banded", "shift_and_add"])
def test_float64_is_not_cut_to_float32(method):
    @jax.jit
    def run(x, kernel):
        return jax.value_and_grad(
            lambda x, kernel: jnp.sum(prism_conv(x, kernel, method=method) ** 2), (0, 1)
        )(x, kernel)

    with jax.enable_x64(True):
        x = np.random.default_rng(0).normal(size=(1, 3, 2, 4))
        kernel = np.random.default_rng(1).normal(size=(1, 1, 3, 1, 1))
        value, (dx, dkernel) = run(x, kernel)
    assert value.dtype == dx.dtype == dkernel.dtype == np.float64
    # Euler's identity for a form of degree 2 in each argument.
    for gradient, argument in ((dx, x), (dkernel, kernel)):
        total = np.vdot(np.asarray(gradient), argument)
        np.testing.assert_allclose(total, 2 * np.asarray(value), rtol=1e-13)


def test_types_are_promoted():
    x = jnp.ones((2, 2, 3), jnp.bfloat16)
    kernel = jnp.ones((1, 1, 3, 1, 1), jnp.float32)

    def types(x, kernel):
        y, pull = jax.vjp(prism_conv, x, kernel)
        return y, *pull(y)

    y, dx, dkernel = jax.eval_shape(types, x, kernel)
    assert (y.dtype, dx.dtype, dkernel.dtype) == ("float32", "bfloat16", "float32")
