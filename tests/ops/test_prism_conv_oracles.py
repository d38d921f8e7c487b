"""The channel convolution against SciPy and against the paper's PyTorch snippet."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from deepprism_jax.ops import prism_conv

METHODS = ("reference", "banded", "shift_and_add")
SCIPY_MODE = {"zero": "constant", "replicate": "nearest", "circular": "wrap"}
PADDINGS = tuple(SCIPY_MODE)
GOLDEN = np.load(Path(__file__).with_name("golden") / "conv3d.npz")


def scipy_conv(x, kernel, padding, strides=1):
    """One field, in float64; zeros around space keep the mode from its borders."""
    rows, columns = kernel.shape[0] // 2, kernel.shape[1] // 2
    wide = np.pad(x.astype(float), [(0, 0), (rows, rows), (columns, columns), (0, 0)])
    y = [
        scipy.ndimage.correlate(image, kernel.astype(float), mode=SCIPY_MODE[padding])
        for image in wide
    ]
    height, width = x.shape[1:3]
    return np.stack(y)[:, rows:, columns:][:, :height:strides, :width:strides]


@partial(jax.jit, static_argnames=("method", "strides"))
def every_topology(x, kernel, method, strides=1):
    kernel = kernel[..., None, None]
    return {
        padding: prism_conv(
            x, kernel, channel_padding=padding, strides=strides, method=method
        )
        for padding in PADDINGS
    }


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("channels", "window", "strides"),
    [
        (7, (3, 3, 3), 1),
        (1, (3, 3, 3), 1),
        (2, (3, 3, 3), 2),
        (3, (3, 1, 7), 1),  # more taps than channels
        (2, (1, 1, 7), 1),  # wraps around more than once
        (6, (1, 3, 5), 2),
        (5, (1, 1, 1), 1),
        (3, (5, 5, 1), 1),  # more rows than the image's half
        (4, (5, 3, 3), 2),
    ],
)
def test_single_field_equals_scipy(channels, window, strides, method):
    x, kernel = random(0, 2, 5, 7, channels), random(1, *window)
    got = every_topology(x, kernel, method, strides)
    for padding in PADDINGS:
        expected = scipy_conv(x, kernel, padding, strides)
        np.testing.assert_allclose(got[padding], expected, rtol=1e-5, atol=2e-5)


def test_default_method_equals_scipy():
    x, kernel = random(0, 2, 5, 7, 6), random(1, 3, 3, 3)
    got = every_topology(x, kernel, "auto")
    for padding in PADDINGS:
        expected = scipy_conv(x, kernel, padding)
        np.testing.assert_allclose(got[padding], expected, rtol=1e-5, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_single_field_equals_scipy_with_125_taps(method):
    x, kernel = random(0, 2, 6, 5, 4), random(1, 5, 5, 5)
    got = every_topology(x, kernel, method)
    for padding in PADDINGS:
        expected = scipy_conv(x, kernel, padding)
        np.testing.assert_allclose(got[padding], expected, rtol=1e-5, atol=5e-5)


@partial(jax.jit, static_argnames=("padding", "method"))
def with_gradients(x, kernel, g, padding, method):
    y, pull = jax.vjp(
        lambda x, kernel: prism_conv(
            x, kernel[..., None, None], channel_padding=padding, method=method
        ),
        x,
        kernel,
    )
    return y, *pull(g)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(
    ("channels", "method"),
    [
        *[(channels, "reference") for channels in (1, 2, 3, 8)],
        *[(channels, "shift_and_add") for channels in (2, 8)],
        (3, "banded"),
    ],
)
def test_equals_the_snippet_of_the_paper_with_its_gradients(channels, padding, method):
    inputs = {name: GOLDEN[f"c{channels}/{name}"] for name in ("x", "kernel", "g")}
    y, dx, dkernel = with_gradients(**inputs, padding=padding, method=method)
    golden = {
        name: GOLDEN[f"c{channels}/{padding}/{name}"] for name in ("y", "dx", "dkernel")
    }
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    close(y + GOLDEN[f"c{channels}/bias"], golden["y"])
    close(dx, golden["dx"])
    close(dkernel, golden["dkernel"])


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_is_the_exact_result_rounded(method):
    x = jnp.asarray(random(0, 2, 5, 4, 6), jnp.bfloat16)
    kernel = jnp.asarray(random(1, 3, 3, 3), jnp.bfloat16)
    got = every_topology(x, kernel, method)
    exact_x, exact_kernel = np.asarray(x, float), np.asarray(kernel, float)
    for padding in PADDINGS:
        assert got[padding].dtype == jnp.bfloat16
        expected = scipy_conv(exact_x, exact_kernel, padding)
        # Half a unit in the last of 8 bits, and no loss in the sum.
        error = np.abs(np.asarray(got[padding], float) - expected)
        allowed = 2.0 ** (np.floor(np.log2(np.abs(expected))) - 8) + 1e-5
        if method == "banded" and padding == "replicate":
            # Taps that read the same end position become one weight, rounded too.
            terms = scipy_conv(np.abs(exact_x), np.abs(exact_kernel), padding)
            allowed[..., [0, -1]] += 2.0**-8 * terms[..., [0, -1]]
        assert (error <= allowed).all()
