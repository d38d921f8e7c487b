"""The form for GPUs equals the reference, whatever the shape and the type."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from entry_points import load_program
from jax.sharding import PartitionSpec

from deepprism_jax.ops import reference, shifted
from deepprism_jax.ops.geometry import Geometry
from deepprism_jax.training.sharding import make_mesh

PADDINGS = ("zero", "replicate", "circular")

# Height, width, depth; kernel; strides.
CASES = {
    "deepprism": ((5, 4, 5), (3, 3, 3, 1, 1), (1, 1)),
    "prism": ((3, 2, 4), (1, 1, 3, 1, 1), (1, 1)),
    "strided": ((5, 6, 4), (3, 3, 3, 1, 1), (2, 2)),
    "more taps than channels": ((3, 2, 3), (1, 1, 7, 1, 1), (1, 1)),
    "around more than once": ((2, 3, 2), (1, 1, 7, 1, 1), (1, 1)),
    "two fields to one": ((4, 3, 3), (3, 1, 3, 2, 1), (2, 1)),
    "one field to two, in passes": ((2, 5, 6), (1, 3, 5, 1, 2), (1, 2)),
    "fields to fields": ((3, 7, 2), (1, 3, 3, 2, 2), (1, 3)),
    "dense": ((5, 4, 1), (3, 3, 1, 3, 1), (2, 2)),
    "larger than the image": ((2, 1, 3), (5, 3, 1, 1, 1), (1, 1)),
    "one number": ((1, 1, 1), (3, 3, 3, 1, 1), (1, 1)),
}

# An output is rounded once: float32 sums differ by their order, bfloat16 by 2^-8.
ROUNDING = {"float32": 3e-6, "bfloat16": 2.0**-8}


def geometry_and_operands(case, padding, dtype="float32"):
    (height, width, depth), kernel_shape, strides = CASES[case]
    geometry = Geometry(height, width, depth, kernel_shape, padding, strides)
    draw = np.random.default_rng(0).normal
    x = draw(size=(2, height, width, kernel_shape[3] * depth))
    g = draw(size=(2, *geometry.out_size, kernel_shape[4] * depth))
    x, kernel, g = (jnp.asarray(a, dtype) for a in (x, draw(size=kernel_shape), g))
    return geometry, x, kernel, g


def three_maps(formulation, geometry):
    def run(x, kernel, g):
        return {
            "conv": formulation.conv(geometry, x, kernel),
            "input_gradient": formulation.input_gradient(geometry, g, kernel),
            "kernel_gradient": formulation.kernel_gradient(geometry, x, g),
        }

    return jax.jit(run)


@pytest.mark.parametrize(
    ("case", "padding"),
    [
        *(("deepprism", padding) for padding in PADDINGS),
        *(("more taps than channels", padding) for padding in PADDINGS),
        ("prism", "replicate"),
        ("strided", "replicate"),
        ("around more than once", "circular"),
        ("two fields to one", "zero"),
        ("one field to two, in passes", "circular"),
        pytest.param("fields to fields", "replicate", marks=pytest.mark.slow),
        ("dense", "zero"),
        ("larger than the image", "zero"),
        ("one number", "circular"),
    ],
)
def test_equals_the_reference(case, padding):
    geometry, *operands = geometry_and_operands(case, padding)
    got = three_maps(shifted.FORMULATION, geometry)(*operands)
    expected = three_maps(reference.FORMULATION, geometry)(*operands)
    for name, wanted in expected.items():
        assert got[name].shape == wanted.shape, name
        size = np.abs(wanted).max()
        atol = ROUNDING["float32"] * size
        np.testing.assert_allclose(got[name], wanted, atol=atol, err_msg=name)


@pytest.mark.parametrize("case", ["two fields to one"])
def test_half_precision_is_rounded_once(case):
    geometry, *operands = geometry_and_operands(case, "circular", "bfloat16")
    got = three_maps(shifted.FORMULATION, geometry)(*operands)
    wide = [a.astype(jnp.float32) for a in operands]
    expected = three_maps(reference.FORMULATION, geometry)(*wide)
    for name, wanted in expected.items():
        assert got[name].dtype == jnp.bfloat16
        value = np.asarray(got[name], np.float32)
        bound = ROUNDING["bfloat16"] * np.abs(wanted) + 3e-6 * np.abs(wanted).max()
        assert (np.abs(value - wanted) <= bound).all(), name


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("part", ["conv", "input_gradient"])
def test_what_is_no_number_stays_where_it_is_read(part, padding):
    geometry, x, kernel, g = geometry_and_operands("deepprism", padding)
    operand = x if part == "conv" else g
    bad = operand.at[0, 2, 1, 0].set(jnp.inf)
    run = jax.jit(lambda a: getattr(shifted.FORMULATION, part)(geometry, a, kernel))
    touched = ~np.isfinite(np.asarray(run(bad)))
    mark = jnp.zeros_like(operand).at[0, 2, 1, 0].set(1.0)
    np.testing.assert_array_equal(touched, np.asarray(run(mark)) != 0)


def test_float64_is_not_cut_to_float32():
    with jax.enable_x64(True):
        geometry, *operands = geometry_and_operands("prism", "zero", "float64")
        got = three_maps(shifted.FORMULATION, geometry)(*operands)
        expected = three_maps(reference.FORMULATION, geometry)(*operands)
        for name, wanted in expected.items():
            assert got[name].dtype == jnp.float64
            np.testing.assert_allclose(got[name], wanted, rtol=1e-12, atol=1e-12)


def test_empty_batch():
    geometry, x, kernel, g = geometry_and_operands(
        "one field to two, in passes", "zero"
    )
    got = three_maps(shifted.FORMULATION, geometry)(x[:0], kernel, g[:0])
    assert got["conv"].shape == (0, *g.shape[1:])
    assert got["input_gradient"].shape == (0, *x.shape[1:])
    np.testing.assert_array_equal(got["kernel_gradient"], np.zeros(kernel.shape))


def test_vmap_over_images_and_kernels():
    geometry, x, kernel, g = geometry_and_operands("prism", "circular")
    run = three_maps(shifted.FORMULATION, geometry)
    operands = [jnp.stack([a, 2.0 * a]) for a in (x, kernel, g)]
    got = jax.vmap(run)(*operands)
    for n in range(2):
        for name, wanted in run(*(a[n] for a in operands)).items():
            np.testing.assert_allclose(got[name][n], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "case",
    ["prism", pytest.param("one field to two, in passes", marks=pytest.mark.slow)],
)
def test_inside_shard_map(case):
    geometry, x, kernel, g = geometry_and_operands(case, "replicate")
    x, g = jnp.concatenate([x, 2 * x]), jnp.concatenate([g, 3 * g])
    run = three_maps(shifted.FORMULATION, geometry)

    def on_a_device(x, kernels, g):
        maps = run(x, kernels[0], g)
        return {**maps, "kernel_gradient": maps["kernel_gradient"][None]}

    split = PartitionSpec("data")
    spread = jax.shard_map(
        on_a_device,
        mesh=make_mesh(),
        in_specs=split,
        out_specs=split,
    )
    kernels = jnp.stack([kernel] * 4)  # a copy for each device
    got, expected = jax.jit(spread)(x, kernels, g), run(x, kernel, g)
    got["kernel_gradient"] = got["kernel_gradient"].sum(0)
    for name, wanted in expected.items():
        size = np.abs(wanted).max()
        np.testing.assert_allclose(got[name], wanted, atol=3e-6 * size, err_msg=name)


@pytest.mark.parametrize(
    ("depth", "kernel_shape", "dtype", "expected"),
    [
        (128, (3, 3, 3, 1, 1), "bfloat16", False),
        (256, (3, 3, 3, 1, 1), "bfloat16", True),
        (64, (3, 3, 3, 1, 1), "float32", False),
        (128, (3, 3, 3, 1, 1), "float32", True),
        (8, (3, 3, 3, 1, 1), "float64", True),
        (64, (1, 1, 3, 1, 1), "bfloat16", True),
        (256, (3, 3, 3, 4, 4), "bfloat16", True),
        (256, (3, 3, 3, 8, 4), "bfloat16", False),
    ],
)
def test_pays_where_the_band_is_mostly_zeros(depth, kernel_shape, dtype, expected):
    geometry = Geometry(32, 32, depth, kernel_shape, "zero", (1, 1))
    assert shifted.pays(geometry, dtype) is expected


@pytest.fixture(scope="module")
def gpu_compile():
    """The benchmark that compiles for a GPU without one, where its compiler is."""
    module = load_program("benchmarks/gpu_compile.py")
    try:
        module.device("h100")
    except SystemExit as error:  # there is no compiler, and why
        pytest.skip(str(error))
    return module


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("padding", PADDINGS)
def test_compiles_to_one_kernel_without_temporaries(gpu_compile, padding, dtype):
    options = gpu_compile.Options(size=(16, 32, 32, 256), padding=padding)
    for part in ("conv", "input_gradient"):
        program = gpu_compile.compile_part(options, "h100", dtype, "shifted", part)
        assert (program.kernels, program.temporary_bytes) == (1, 0), part
    part = "kernel_gradient"
    program = gpu_compile.compile_part(options, "h100", dtype, "shifted", part)
    # One pass over x and g, two over its partial sums, and two for masks.
    assert program.kernels <= 5
    assert program.temporary_bytes < 250_000  # x has 4.2 million numbers
