"""Shapes, counts and errors of every kind; shapes are traced, nothing is compiled."""

import math
import re
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deepprism_jax.layers import ConvKind, conv_factory, make_conv
from deepprism_jax.layers.functional import Functional

KINDS = [
    "dense",
    "group",
    "depthwise_separable",
    "low_rank",
    "channel",
    "prism_separable",
    "deepprism",
]


def test_every_kind_is_tested():
    assert get_args(ConvKind) == tuple(KINDS)


def traced(kind, in_channels, out_channels, shape, **options):
    """The abstract module, and the abstract output for an input of this shape."""

    def run(x):
        conv = make_conv(kind, in_channels, out_channels, rngs=nnx.Rngs(0), **options)
        return nnx.state(conv), conv(x)

    return jax.eval_shape(run, jax.ShapeDtypeStruct(shape, jnp.float32))


def count(state):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize(
    ("strides", "size", "expected"),
    [
        (1, (8, 6), (8, 6)),
        (1, (5, 7), (5, 7)),
        (2, (8, 6), (4, 3)),
        (2, (5, 7), (3, 4)),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_output_is_the_input_over_the_stride(
    kind, strides, size, expected, kernel_size
):
    _, y = traced(
        *(kind, 32, 32, (2, *size, 32)), strides=strides, kernel_size=kernel_size
    )
    assert y.shape == (2, *expected, 32)
    assert y.dtype == jnp.float32


@pytest.mark.parametrize("batch", [(), (2, 3)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_batch_axes(kind, batch):
    _, y = traced(kind, 32, 32, (*batch, 4, 4, 32))
    assert y.shape == (*batch, 4, 4, 32)


@pytest.mark.parametrize("kind", KINDS)
def test_computes_in_its_own_type_and_keeps_parameters_in_float32(kind):
    state, y = traced(kind, 32, 32, (2, 4, 4, 32), dtype=jnp.bfloat16)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("kind", "three", "one", "without_bias"),
    [
        ("dense", 36_928, 4_160, 36_864),
        ("group", 1_216, 192, 1_152),
        ("depthwise_separable", 4_736, 4_160, 4_672),
        ("low_rank", 10_304, 2_112, 10_240),
        ("channel", 4, 4, 3),
        ("prism_separable", 13, 4, 12),
        ("deepprism", 28, 4, 27),
    ],
)
def test_parameters_at_64_channels(kind, three, one, without_bias):
    shape = (1, 3, 3, 64)
    assert count(traced(kind, 64, 64, shape)[0]) == three
    assert count(traced(kind, 64, 64, shape, kernel_size=1)[0]) == one
    assert count(traced(kind, 64, 64, shape, use_bias=False)[0]) == without_bias


@pytest.mark.parametrize(
    ("channels", "fields", "three", "one"),
    [
        ((64, 64), 2, 110, 14),
        ((64, 64), 8, 1_736, 200),
        ((64, 32), 1, 55, 7),  # a skip connection: two fields to one
        ((32, 64), 1, 56, 8),
        ((48, 32), 2, 164, 20),
        ((64, 64), 64, 36_928, 4_160),  # one position each: the dense kind
    ],
)
def test_fields_of_deepprism(channels, fields, three, one):
    shape = (1, 3, 3, channels[0])
    for kernel_size, expected in ((3, three), (1, one)):
        options = {"fields": fields, "kernel_size": kernel_size}
        state, y = traced("deepprism", *channels, shape, **options)
        assert count(state) == expected
        assert y.shape[-1] == channels[1]


def with_random_values(kind, **options):
    """The kind at 8 channels; drawing its kernels would take longer to compile."""
    rng = np.random.default_rng(0)
    options = {"groups": 4, "rank": 4} | options
    functional = Functional(
        nnx.eval_shape(lambda: make_conv(kind, 8, 8, rngs=nnx.Rngs(0), **options))
    )
    return functional.bind(
        {
            name: jnp.asarray(rng.normal(size=value.shape), jnp.float32)
            for name, value in functional.shapes.items()
        }
    )


@pytest.mark.parametrize("kind", KINDS)
def test_stride_keeps_every_other_position_from_the_first(kind):
    one, two = (with_random_values(kind, strides=strides) for strides in (1, 2))
    x = jax.random.normal(jax.random.key(0), (1, 6, 5, 8))
    whole, kept = jax.jit(lambda x: (one(x), two(x)))(x)
    np.testing.assert_allclose(kept, whole[:, ::2, ::2], rtol=1e-4, atol=1e-4)


def test_dense_is_the_sum_over_the_window():
    conv = with_random_values("dense", strides=2)
    x = np.random.default_rng(1).normal(size=(5, 4, 8)).astype(np.float32)
    padded = np.pad(x, [(1, 1), (1, 1), (0, 0)])
    kernel, bias = np.asarray(conv.kernel[...]), np.asarray(conv.bias[...])
    expected = [
        [
            np.einsum("hwi,hwio->o", padded[i : i + 3, j : j + 3], kernel) + bias
            for j in range(0, 4, 2)
        ]
        for i in range(0, 5, 2)
    ]
    np.testing.assert_allclose(conv(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("kind", "channels", "options", "message"),
    [
        (
            *("prism", (8, 8), {}),
            "conv='prism' is unknown; choose one of ['dense', 'group', "
            "'depthwise_separable', 'low_rank', 'channel', 'prism_separable', "
            "'deepprism']",
        ),
        (
            *("dense", (8, 8), {"kernel_size": 2}),
            "kernel_size=2 must be odd and positive",
        ),
        (
            *("deepprism", (8, 8), {"kernel_size": -1}),
            "kernel_size=-1 must be odd and positive",
        ),
        (
            *("group", (8, 12), {"groups": 8}),
            "groups=8 must divide C_in=8 and C_out=12; choose one of [1, 2, 4]",
        ),
        (
            *("group", (8, 8), {"groups": 0}),
            "groups=0 must divide C_in=8 and C_out=8; choose one of [1, 2, 4, 8]",
        ),
        (
            *("low_rank", (8, 4), {"rank": 5}),
            "rank=5 must lie between 1 and 4, the smaller of C_in=8 and C_out=4",
        ),
        (
            *("low_rank", (8, 8), {"rank": 0}),
            "rank=0 must lie between 1 and 8, the smaller of C_in=8 and C_out=8",
        ),
        (
            *("channel", (8, 4), {}),
            "conv='channel' keeps the number of channels and cannot map 8 to 4; use "
            "'deepprism', which maps multiples of a depth as fields, or 'dense'",
        ),
        (
            *("prism_separable", (4, 8), {}),
            "conv='prism_separable' keeps the number of channels and cannot map 4 to "
            "8; use 'deepprism', which maps multiples of a depth as fields, or 'dense'",
        ),
        (
            *("deepprism", (12, 12), {"fields": 5}),
            "fields=5 must divide C=12; choose one of [1, 2, 3, 4, 6, 12]",
        ),
        (
            *("deepprism", (4, 4), {"fields": 0}),
            "fields=0 must divide C=4; choose one of [1, 2, 4]",
        ),
        (
            *("deepprism", (48, 32), {}),
            "conv='deepprism' with fields=1 cannot map 48 channels to 32: both must be "
            "multiples of the depth 32; choose widths that divide each other, more "
            "fields, or 'dense'",
        ),
        *(
            (kind, channels, options, message)
            for kind in KINDS
            for channels, options, message in [
                ((8, 8), {"strides": 0}, "strides=0 must be one positive integer"),
                (
                    *((8, 8), {"strides": (2, 1)}),
                    "strides=(2, 1) must be one positive integer",
                ),
                ((0, 8), {}, "in_channels=0 must be one positive integer"),
                ((8, 0), {}, "out_channels=0 must be one positive integer"),
            ]
        ),
    ],
)
def test_errors_say_why_and_what_would_do(kind, channels, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_conv(kind, *channels, rngs=nnx.Rngs(0), **options)


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("kind", KINDS)
def test_numpy_integers_are_integers(kind):
    numbers = [np.int64(n) for n in (8, 8, 2)]
    options = {"groups": 4, "rank": 4, "strides": numbers[2]}
    _, y = traced(kind, *numbers[:2], (1, 4, 4, 8), **options)
    assert y.shape == (1, 2, 2, 8)


def test_factory_fills_in_the_kind_and_its_options():
    conv = conv_factory("deepprism", fields=2)
    state = jax.eval_shape(lambda: nnx.state(conv(8, 8, rngs=nnx.Rngs(0))))
    assert count(state) == 110
