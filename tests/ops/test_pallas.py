"""The TPU kernels, run by Pallas's interpreter, against plain JAX and its gradients."""

import importlib.util
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deepprism_jax.ops import reference
from deepprism_jax.ops.geometry import Geometry
from deepprism_jax.ops.pallas import backward, forward, rows, tiles
from deepprism_jax.training.sharding import make_mesh

# Batch, height, width, depth; fields in and out; channel padding; bytes of a block.
CASES = {
    "circular": ((2, 4, 16, 256), (1, 1), "circular", None),
    "odd size": ((1, 7, 5, 128), (1, 1), "zero", None),
    "one position": ((2, 1, 1, 128), (1, 1), "replicate", None),
    "blocks of rows": ((2, 12, 8, 128), (1, 1), "replicate", 4 * 8 * 512),
    "a row a block, cut": ((1, 3, 70, 128), (1, 1), "circular", 96 * 512),
    "two fields to one": ((1, 3, 6, 128), (2, 1), "zero", None),
    "one field to two": ((1, 2, 8, 128), (1, 2), "replicate", None),
    "images together": ((20, 2, 3, 128), (1, 1), "circular", None),
}
UNIT = {"float32": 2.0**-24, "bfloat16": 2.0**-8}  # largest relative rounding

# Most of the time of these tests is compilation of what runs once.
quickly = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(autouse=True)
def rolled_loops(monkeypatch):
    """Straight code is for the TPU's scheduler; here it would only compile longer."""
    monkeypatch.setattr(rows, "_STRAIGHT", 1)


def all_but_slow(*quick):
    """All cases, of which only some are not slow: they compile for seconds each."""
    slow = [pytest.param(c, marks=pytest.mark.slow) for c in CASES if c not in quick]
    return [*quick, *slow]


def random(seed, *shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def problem(case, monkeypatch, dtype=jnp.float32):
    """The geometry and all operands of the half-block, by name."""
    (batch, height, width, depth), fields, padding, block = CASES[case]
    if block:
        monkeypatch.setattr(tiles, "_BLOCK", block)
    geometry = Geometry(height, width, depth, (3, 3, 3, *fields), padding, (1, 1))
    assert tiles.fits(geometry, dtype)
    channels, out = (n * depth for n in fields)
    return geometry, {
        "x": random(0, batch, height, width, channels, dtype=dtype),
        "mean": random(1, batch, channels),
        "slope": random(2, batch, channels),
        "offset": random(3, batch, channels),
        "kernel": random(4, *geometry.kernel_shape, dtype=dtype),
        "bias": random(5, fields[1]),
        "alpha": random(6, batch, out),
        "beta": random(7, batch, out),
        # Not around zero, so that sums of it do not cancel.
        "g": random(8, batch, height, width, out, dtype=dtype) + dtype(0.5),
    }


def over_space(v):
    return v[:, None, None]


def conv(geometry, x, kernel, bias):
    return reference.conv(geometry, x, kernel) + jnp.repeat(bias, geometry.depth)


def activation(x, mean, slope, offset):
    return jax.nn.silu((x - over_space(mean)) * over_space(slope) + over_space(offset))


def assert_close(results, expected, tolerance=3e-6):
    for number, (result, wanted) in enumerate(zip(results, expected, strict=True)):
        assert result.shape == wanted.shape
        size = max(np.abs(wanted).max(), 1e-3)
        np.testing.assert_allclose(
            result, wanted, rtol=0, atol=tolerance * size, err_msg=str(number)
        )


@pytest.mark.parametrize(
    "case", all_but_slow("odd size", "one position", "a row a block, cut")
)
def test_convolution_and_gradients_are_those_of_plain_jax(case, monkeypatch):
    geometry, o = problem(case, monkeypatch)

    @quickly
    def kernels(x, kernel, bias, g):
        y = forward.forward(geometry, x, kernel, bias, interpret=True)
        return y, *backward.backward(geometry, x, kernel, g, interpret=True)

    @quickly
    def plain(x, kernel, bias, g):
        y, pull = jax.vjp(partial(conv, geometry), x, kernel, bias)
        return y, *pull(g)

    operands = o["x"], o["kernel"], o["bias"], o["g"]
    assert_close(kernels(*operands), plain(*operands))


def half_block(geometry, x, mean, slope, offset, kernel, bias):
    """y and its moments; the gradient of the mean is left to the caller."""
    y = conv(geometry, activation(x, mean, slope, offset), kernel, bias)
    return y, y.mean((1, 2)), y.var((1, 2))


def run_half_block(geometry, o):
    parts = o["x"], o["mean"], o["slope"], o["offset"], o["kernel"]
    y, *moments = forward.activated_forward(geometry, *parts, o["bias"], interpret=True)
    gradients = backward.activated_backward(
        geometry, *parts, y, o["alpha"], o["beta"], o["g"], interpret=True
    )
    return y, *moments, *gradients


@pytest.mark.parametrize(
    "case", all_but_slow("circular", "blocks of rows", "two fields to one")
)
def test_half_block_and_gradients_are_those_of_plain_jax(case, monkeypatch):
    geometry, o = problem(case, monkeypatch)

    @quickly
    def plain(o):
        def run(x, slope, offset, kernel, bias):
            return half_block(geometry, x, o["mean"], slope, offset, kernel, bias)

        operands = o["x"], o["slope"], o["offset"], o["kernel"], o["bias"]
        (y, *moments), pull = jax.vjp(run, *operands)
        total = o["g"] + over_space(o["alpha"]) + over_space(o["beta"]) * y
        zero = jnp.zeros_like(o["alpha"])
        return y, *moments, *pull((total, zero, zero))

    assert_close(quickly(partial(run_half_block, geometry))(o), plain(o))


def test_gradient_through_the_moments_is_alpha_and_beta(monkeypatch):
    geometry, o = problem("images together", monkeypatch)
    names = "x", "mean", "slope", "offset", "kernel", "bias"
    count = geometry.height * geometry.width
    # Cotangents of the mean and the variance of y.
    d_mean, d_variance = o["alpha"], o["beta"]

    def plain(*operands: jax.Array):
        _, pull = jax.vjp(partial(half_block, geometry), *operands)
        return pull((o["g"], d_mean, d_variance))

    def kernels(*operands):
        y, mean, _ = forward.activated_forward(geometry, *operands, interpret=True)
        beta = 2.0 * d_variance / count
        alpha = d_mean / count - beta * mean
        dx, dslope, doffset, *rest = backward.activated_backward(
            geometry, *operands[:5], y, alpha, beta, o["g"], interpret=True
        )
        return dx, -o["slope"] * doffset, dslope, doffset, *rest

    operands = [o[name] for name in names]
    assert_close(quickly(kernels)(*operands), quickly(plain)(*operands), 1e-5)


def test_bfloat16_differs_by_the_rounding_of_what_is_stored(monkeypatch):
    geometry, half = problem("odd size", monkeypatch, jnp.bfloat16)
    o = {name: v.astype(jnp.float32) for name, v in half.items()}
    unit, fine = UNIT["bfloat16"], 64 * UNIT["float32"]
    zero = jnp.zeros_like(o["bias"])

    # Rounded: h before the convolution, and y.
    y, *_ = quickly(partial(run_half_block, geometry))(half)
    h = activation(o["x"], o["mean"], o["slope"], o["offset"])
    exact = conv(geometry, h, o["kernel"], o["bias"])
    reach = conv(geometry, abs(h), abs(o["kernel"]), zero)
    bound = 1.01 * unit * (reach + abs(exact)) + fine * reach
    assert np.all(np.abs(y.astype(jnp.float32) - exact) <= bound)
    assert np.any(np.abs(y.astype(jnp.float32) - exact) > bound / 50)

    # Products of stored operands are exact and summed in float32; results are rounded.
    @quickly
    def gradients(operands, g):
        return jax.vjp(partial(conv, geometry), *operands)[1](g)

    run = quickly(partial(backward.backward, geometry, interpret=True))
    results = run(half["x"], half["kernel"], half["g"])
    operands = o["x"], o["kernel"], o["bias"]
    exact = gradients(operands, o["g"])
    sizes = gradients(tuple(map(abs, operands)), abs(o["g"]))
    for result, wanted, size in zip(results, exact, sizes, strict=True):
        error = np.abs(result.astype(jnp.float32) - wanted)
        assert np.all(error <= 1.01 * unit * abs(wanted) + fine * size)
    assert results[0].dtype == results[1].dtype == jnp.bfloat16


def test_variance_does_not_cancel_beside_a_large_offset(monkeypatch):
    geometry, o = problem("blocks of rows", monkeypatch)
    o["bias"] = jnp.full_like(o["bias"], 1e4)
    o["kernel"] *= 0.01
    names = "x", "mean", "slope", "offset", "kernel", "bias"
    run = quickly(partial(forward.activated_forward, geometry, interpret=True))
    y, mean, variance = run(*(o[name] for name in names))
    exact = np.asarray(y, np.float64)
    np.testing.assert_allclose(mean, exact.mean((1, 2)), rtol=1e-6)
    # y itself holds its deviations to a unit of 1e4; E[y^2] - E[y]^2 would hold none.
    assert exact.std() < 1.0
    np.testing.assert_allclose(variance, exact.var((1, 2)), rtol=2e-2)


@pytest.mark.parametrize(
    ("change", "dtype", "expected"),
    [
        ({}, "float32", True),
        ({}, "bfloat16", True),
        ({"height": 1, "width": 1}, "bfloat16", True),
        ({}, "float64", False),
        ({"depth": 64}, "float32", False),
        ({"depth": 192}, "float32", False),
        ({"strides": (2, 1)}, "float32", False),
        ({"kernel_shape": (1, 1, 3, 1, 1)}, "float32", False),
        ({"kernel_shape": (3, 3, 3, 2, 2)}, "float32", True),
        ({"kernel_shape": (3, 3, 3, 3, 2)}, "float32", False),
        ({"depth": 1024}, "float32", False),
        ({"width": 1024}, "bfloat16", True),
        ({"width": 1024}, "float32", False),
    ],
)
def test_fits(change, dtype, expected):
    geometry = Geometry(32, 32, 256, (3, 3, 3, 1, 1), "circular", (1, 1))
    assert tiles.fits(geometry._replace(**change), dtype) is expected


def test_vmap_is_a_loop(monkeypatch):
    geometry, o = problem("odd size", monkeypatch)
    x, kernels = random(0, 2, *o["x"].shape), random(1, 2, *o["kernel"].shape)
    run = partial(forward.forward, geometry, bias=o["bias"], interpret=True)
    got = quickly(jax.vmap(run))(x, kernels)
    for n in range(2):
        wanted = conv(geometry, x[n], kernels[n], o["bias"])
        assert_close([got[n]], [wanted])


def test_inside_shard_map(monkeypatch):
    geometry, o = problem("one position", monkeypatch)
    x, g = random(0, 4, *o["x"].shape[1:]), random(1, 4, *o["g"].shape[1:])

    def on_a_device(x, kernel, bias, g):
        y = forward.forward(geometry, x, kernel, bias, interpret=True)
        dx, *shared = backward.backward(geometry, x, kernel, g, interpret=True)
        return y, dx, *jax.lax.psum(shared, "data")

    shared, split = PartitionSpec(), PartitionSpec("data")
    # The interpreter is not made for the checks of axes; the TPU's lowering is, below.
    run = jax.shard_map(
        on_a_device,
        mesh=make_mesh(),
        in_specs=(split, shared, shared, split),
        out_specs=(split, split, shared, shared),
        check_vma=False,
    )
    y, pull = jax.vjp(partial(conv, geometry), x, o["kernel"], o["bias"])
    assert_close(quickly(run)(x, o["kernel"], o["bias"], g), (y, *pull(g)))


@pytest.fixture
def tpu_mesh(monkeypatch):
    """Four v5e chips that are not there: their compiler is, with libtpu."""
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    monkeypatch.setenv("TPU_LOG_DIR", "disabled")
    if not importlib.util.find_spec("libtpu"):
        pytest.skip("the TPU compiler is not installed: pip install -e '.[tpu]'")
    topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    return Mesh(np.array(topology.devices), ("data",))


@pytest.mark.tpu
@pytest.mark.parametrize("size", [(32, 32, 256), (7, 5, 128)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_compiles_for_a_tpu_without_temporaries(tpu_mesh, size, dtype, monkeypatch):
    monkeypatch.undo()
    geometry = Geometry(*size, (3, 3, 3, 1, 1), "replicate", (1, 1))
    split, shared = PartitionSpec("data"), PartitionSpec()

    def of(spec, *shape, dtype="float32"):
        sharding = NamedSharding(tpu_mesh, spec)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    maps = of(split, 32, *size, dtype=dtype)
    vectors = [of(split, 32, size[2])] * 5
    parameters = of(shared, *geometry.kernel_shape, dtype=dtype), of(shared, 1)

    def on_a_device(x, g, mean, slope, offset, alpha, beta, kernel, bias):
        kernel, bias = jax.lax.pcast((kernel, bias), "data", to="varying")
        affine = mean, slope, offset
        y, *moments = forward.activated_forward(geometry, x, *affine, kernel, bias)
        dx, *sums, dkernel, dbias = backward.activated_backward(
            geometry, x, *affine, kernel, y, alpha, beta, g
        )
        return (y, dx, *moments, *sums), jax.lax.psum((dkernel, dbias), "data")

    run = jax.shard_map(
        on_a_device,
        mesh=tpu_mesh,
        in_specs=(*[split] * 7, shared, shared),
        out_specs=(split, shared),
    )
    program = jax.jit(run, donate_argnums=(0,)).lower(maps, maps, *vectors, *parameters)
    plan = program.compile().memory_analysis()
    assert plan is not None
    assert plan.temp_size_in_bytes < 8 * np.prod(size) * jnp.dtype(dtype).itemsize
