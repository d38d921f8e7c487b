"""The C++ kernels equal the formulations of JAX, where there is a compiler."""

import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from deepprism_jax.layers.norm import group_norm
from deepprism_jax.ops import prism_conv
from deepprism_jax.ops.native import library, prism
from deepprism_jax.ops.native.__main__ import main
from deepprism_jax.training.sharding import make_mesh


def random(seed, *shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def maps(x, kernel, g, method, **options):
    """The convolution and both gradients."""
    conv = partial(prism_conv, method=method, **options)
    y, pull = jax.vjp(conv, x, kernel)
    return y, *pull(g)


@pytest.mark.parametrize("padding", ["zero", "replicate", "circular"])
@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize(
    ("size", "fields", "strides"),
    [
        ((2, 5, 7, 16), (1, 1), 1),
        ((1, 8, 1, 48), (1, 1), 1),
        ((3, 6, 5, 32), (2, 3), (1, 2)),
        ((9, 16, 16, 32), (1, 1), 2),  # enough work for several threads
    ],
)
def test_the_convolution_is_the_reference(
    native, padding, window, size, fields, strides
):
    *space, depth = size
    step = np.broadcast_to(strides, 2)
    x = random(0, *space, depth * fields[0])
    kernel = random(1, window, window, 3, *fields)
    out = [-(-n // s) for n, s in zip(space[1:], step, strict=True)]
    g = random(2, size[0], *out, depth * fields[1])
    options = {"channel_padding": padding, "strides": strides}
    got = maps(x, kernel, g, "native", **options)
    wanted = jax.jit(partial(maps, method="banded", **options))(x, kernel, g)
    for value, expected in zip(got, wanted, strict=True):
        assert value.shape == expected.shape
        size = np.abs(expected).max(initial=1.0)
        np.testing.assert_allclose(value, expected, rtol=0, atol=2e-6 * size)


def test_bfloat16_is_rounded_once(native):
    cast = partial(jnp.asarray, dtype=jnp.bfloat16)
    x, kernel = cast(random(0, 2, 6, 5, 64)), cast(random(1, 3, 3, 3, 2, 2))
    g = cast(random(2, 2, 6, 5, 64))
    wide = maps(*(a.astype(jnp.float32) for a in (x, kernel, g)), "native")
    for value, exact in zip(maps(x, kernel, g, "native"), wide, strict=True):
        assert value.dtype == jnp.bfloat16
        np.testing.assert_array_equal(value, exact.astype(jnp.bfloat16))


def test_what_no_number_is_stays_none_in_bfloat16(native):
    x = jnp.full((1, 1, 1, 16), jnp.nan, jnp.bfloat16).at[..., 0].set(jnp.inf)
    kernel = jnp.zeros((1, 1, 3, 1, 1), jnp.bfloat16).at[0, 0, 1].set(1)
    y = prism_conv(x, kernel, channel_padding="zero", method="native")
    assert np.isnan(np.asarray(y[..., 1:], np.float32)).all()


def test_the_default_uses_the_kernels_and_leaves_what_does_not_fit(native):
    def text(channels):
        x, kernel = random(0, 1, 4, 4, channels), random(1, 3, 3, 3, 1, 1)
        return jax.jit(prism_conv).lower(x, kernel).as_text()

    assert "deepprism_prism" in text(16)
    assert "deepprism_prism" not in text(24)


def test_shapes_without_a_kernel_are_computed_otherwise(native):
    x, kernel = random(0, 2, 3, 4, 5), random(1, 5, 3, 3, 1, 1)
    np.testing.assert_allclose(
        prism_conv(x, kernel, method="native"),
        prism_conv(x, kernel, method="reference"),
        atol=1e-5,
    )


def test_vmap_and_second_derivatives(native):
    x, kernels = random(0, 2, 1, 4, 3, 16), random(1, 2, 3, 3, 3, 1, 1)

    def measure(x, kernel, method):
        y, pull = jax.vjp(partial(prism_conv, method=method), x, kernel)
        return sum(jnp.sum(part**2) for part in pull(y))

    gradients = {
        method: jax.jit(jax.vmap(jax.grad(partial(measure, method=method), (0, 1))))(
            x, kernels
        )
        for method in ("native", "banded")
    }
    for value, expected in zip(*gradients.values(), strict=True):
        size = np.abs(expected).max()
        np.testing.assert_allclose(value, expected, rtol=0, atol=5e-6 * size)


def test_gradient_inside_shard_map(native):
    mesh = make_mesh()
    x, kernel = random(0, 4, 3, 3, 16), random(1, 3, 3, 3, 1, 1)
    scale, bias = random(2, 16), random(3, 16)

    def loss(x, *rest):
        kernel, scale, bias = rest
        y = group_norm(prism_conv(x, kernel), scale, bias, groups=4, silu=True)
        return jnp.sum(y**2)

    def on_a_device(x, *rest):
        return jax.grad(loss, (0, 1, 2, 3))(x, *rest)

    split, whole = PartitionSpec("data"), PartitionSpec()
    spread = jax.shard_map(
        on_a_device,
        mesh=mesh,
        in_specs=(split, whole, whole, whole),
        out_specs=(split, whole, whole, whole),
    )
    got = jax.jit(spread)(x, kernel, scale, bias)
    wanted = jax.jit(on_a_device)(x, kernel, scale, bias)
    for value, expected in zip(got, wanted, strict=True):
        size = np.abs(expected).max()
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-5 * size)


@pytest.mark.parametrize(("dtype", "digits"), [("float32", 2e-6), ("bfloat16", 8e-3)])
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize(
    ("shape", "groups"), [((2, 5, 7, 32), 4), ((1, 1, 9, 48), 3), ((3, 32, 32, 64), 32)]
)
def test_group_norm_is_that_of_jax(
    native, monkeypatch, shape, groups, silu, dtype, digits
):
    x, g = (random(n, *shape, dtype=dtype) for n in (0, 1))
    scale, bias = 1 + 0.3 * random(2, shape[-1]), random(3, shape[-1])

    def run(x, scale, bias):
        norm = partial(group_norm, groups=groups, silu=silu)
        y, pull = jax.vjp(norm, 3 + 2 * x, scale, bias)
        return y, *pull(g)

    got = run(x, scale, bias)
    monkeypatch.setattr(library, "loaded", lambda: False)
    for value, expected in zip(got, run(x, scale, bias), strict=True):
        assert value.dtype == expected.dtype
        value, expected = (np.asarray(a, np.float32) for a in (value, expected))
        size = np.abs(expected).max()
        np.testing.assert_allclose(value, expected, rtol=0, atol=digits * size)


def test_scale_and_bias_may_be_short_floats(native):
    x, short = random(0, 2, 3, 4, 32), partial(random, dtype=jnp.bfloat16)
    scale, bias = short(1, 32), short(2, 32)
    y, pull = jax.vjp(partial(group_norm, groups=4), x, scale, bias)
    wide = (a.astype(jnp.float32) for a in (scale, bias))
    expected, pull_wide = jax.vjp(partial(group_norm, groups=4), x, *wide)
    np.testing.assert_array_equal(y, expected)
    for value, gradient in zip(pull(y), pull_wide(y), strict=True):
        np.testing.assert_array_equal(value, gradient.astype(value.dtype))


def test_group_norm_is_exact_far_from_zero_and_at_large_values(native):
    shape, ones = (2, 16, 16, 16), jnp.ones(16)
    norm = partial(group_norm, scale=ones, bias=0 * ones, groups=4)
    x = random(0, *shape)
    np.testing.assert_allclose(norm(x + 1000), norm(x), atol=2e-3)
    huge = group_norm(x, ones * 1e3, 0 * ones, groups=4, silu=True)
    plain = norm(x) * 1e3
    np.testing.assert_allclose(huge, plain * jax.nn.sigmoid(plain), atol=1e-3)


@pytest.mark.parametrize("silu", [False, True])
def test_what_is_no_number_is_not_normalised_away(native, silu):
    x = random(0, 2, 4, 4, 32).at[0, 1, 1, 3].set(jnp.nan)
    norm = partial(group_norm, groups=4, silu=silu)
    y, pull = jax.vjp(norm, x, jnp.ones(32), jnp.zeros(32))
    for value in (y, pull(jnp.ones_like(x))[0]):
        assert np.isnan(value[0, ..., :8]).all()
        assert np.isfinite(value[1]).all()


def test_results_do_not_depend_on_the_run(native):
    x, kernel, g = (
        random(0, 8, 32, 32, 32),
        random(1, 3, 3, 3, 1, 1),
        random(2, 8, 32, 32, 32),
    )
    first = maps(x, kernel, g, "native")
    for _ in range(5):
        for one, other in zip(first, maps(x, kernel, g, "native"), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("method", ["native", "shift_and_add", "banded"])
def test_long_sums_keep_their_digits(native, method):
    # A tap's gradient is a sum of 16,384 products, in float64 here. Added one by one in
    # float32, partial sums grow like a random walk, and each is rounded.
    x, g = random(0, 2, 16, 16, 32), random(1, 2, 16, 16, 32)
    kernel = random(2, 3, 3, 3, 1, 1)
    found = jax.jit(partial(maps, method=method))(x, kernel, g)[2].reshape(3, 3, 3)
    wide = np.pad(np.asarray(x, np.float64), [(0, 0), (1, 1), (1, 1), (0, 0)])
    for i, j, k in np.ndindex(3, 3, 3):
        window = np.roll(wide[:, i : i + 16, j : j + 16], 1 - k, axis=-1)
        products = window * np.asarray(g, np.float64)
        one_by_one = 2.0**-24 * np.sqrt(products.size / 2 * np.sum(products**2))
        assert abs(found[i, j, k] - products.sum()) < one_by_one


def test_without_the_kernels_they_are_asked_for_by_name(monkeypatch):
    monkeypatch.setattr(library, "loaded", lambda: False)
    with pytest.raises(ValueError, match=library.BUILD):
        prism_conv(random(0, 1, 1, 1, 16), random(1, 1, 1, 3, 1, 1), method="native")


def test_a_file_that_is_no_library_is_done_without(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("DEEPPRISM_NATIVE")
    library.path().parent.mkdir(parents=True)
    library.path().write_text("not a library")
    library.register.cache_clear()
    assert not library.loaded()
    library.register.cache_clear()


@pytest.mark.parametrize("fault", ["missing", "failing"])
def test_what_keeps_a_build_from_succeeding_is_said(tmp_path, monkeypatch, fault):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if fault == "missing":
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setattr(shutil, "which", lambda name: None)
    else:
        monkeypatch.setenv("CXX", "false")
    says = {"missing": "no C\\+\\+ compiler", "failing": "false failed"}[fault]
    with pytest.raises(SystemExit, match=f"error: {says}"):
        main()
    assert not library.path().exists()


def test_the_kernels_take_only_what_they_can():
    geometry = partial(prism.Geometry, 4, 4, padding="zero", strides=(1, 1))
    kernel = (3, 3, 3, 1, 1)
    assert prism.fits(geometry(depth=32, kernel_shape=kernel), jnp.dtype("bfloat16"))
    assert not prism.fits(geometry(depth=24, kernel_shape=kernel), jnp.dtype("float32"))
    assert not prism.fits(geometry(depth=32, kernel_shape=kernel), jnp.dtype("float64"))
    assert not prism.fits(
        geometry(depth=32, kernel_shape=(3, 3, 5, 1, 1)), jnp.dtype("float32")
    )
