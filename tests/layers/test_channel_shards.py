"""Layers whose channels are cut over devices do what they do on whole maps."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sharded import both_ways, on_shards

from deepprism_jax.layers import (
    Attention,
    GroupNorm,
    PrismConv,
    conv_factory,
    make_conv,
)
from deepprism_jax.layers.dense import Conv
from deepprism_jax.layers.functional import Functional
from deepprism_jax.models import AutoencoderKL
from deepprism_jax.ops import channel_shards
from deepprism_jax.ops.channel_shards import Shards, over_channels

C = 16


def feature_map(height=2, width=2, channels=C):
    shape = (2, height, width, channels)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def assert_alike(both, rtol=1e-5, atol=1e-5):
    expected, found = both
    assert set(expected) == set(found)
    for name, value in expected.items():
        # Sums of many terms are off by a part of the largest, also where they cancel.
        largest = max(1.0, float(np.abs(np.asarray(value, np.float32)).max()))
        np.testing.assert_allclose(
            np.asarray(found[name], np.float32),
            np.asarray(value, np.float32),
            rtol=rtol,
            atol=atol * largest,
            err_msg=name,
        )


def rngs():
    return nnx.Rngs(0)


def zeros(key, shape):
    del key
    return jnp.zeros(shape)


# Kernels without taps in space are as good for what is asked here, and sooner compiled.


@pytest.mark.parametrize(
    ("padding", "count", "fields"),
    [("zero", 4, 1), ("replicate", 4, 1), ("circular", 2, 2)],
)
def test_a_halo_makes_up_for_what_neighbours_hold(padding, count, fields):
    def make():
        return PrismConv(
            fields,
            fields,
            kernel_size=(1, 1, 3),
            channel_padding=padding,
            rngs=rngs(),
        )

    assert_alike(both_ways(make, feature_map(), count=count, fields=fields))


@pytest.mark.parametrize("kind", ["channel", "dense"])
def test_half_precision_rounds_edges_and_sums_once_more(kind):
    def make():
        dtype = jnp.bfloat16
        return make_conv(kind, C, C, kernel_size=1, dtype=dtype, rngs=rngs())

    # A step of bfloat16 is 2^-8 of a number.
    assert_alike(both_ways(make, feature_map(), count=4), rtol=0.0, atol=2**-6)


def test_a_halo_has_taps_in_space_and_follows_strides():
    def make():
        return make_conv("deepprism", C, C, strides=2, rngs=rngs())

    assert_alike(both_ways(make, feature_map(height=3), count=2))


def test_a_halo_may_be_all_that_a_device_holds():
    def make():
        size = (1, 1, 5)
        return PrismConv(kernel_size=size, channel_padding="replicate", rngs=rngs())

    assert_alike(both_ways(make, feature_map(channels=8), count=4))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("dense", {"strides": 2}),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("prism_separable", {"strides": 2}),
                ("group", {"groups": 8}),
                ("depthwise_separable", {}),
                ("low_rank", {"rank": 3}),
            )
        ),
    ],
)
def test_other_kinds_are_the_same_on_shards(kind, options):
    def make():
        return make_conv(kind, C, C, rngs=rngs(), **options)

    assert_alike(both_ways(make, feature_map(), count=4))


@pytest.mark.parametrize(("channels", "role"), [((3, C), "in"), ((C, 3), "out")])
def test_images_are_whole_on_every_device(channels, role):
    def make():
        return make_conv("dense", *channels, role=role, kernel_size=1, rngs=rngs())

    x = feature_map(channels=channels[0])
    whole = ("x",) if role == "in" else ("y",)
    # Two fields of the map are cut each by itself.
    assert_alike(both_ways(make, x, count=4, fields=2, whole=whole))


@pytest.mark.parametrize("kind", ["channel", "dense"])
def test_a_layer_may_keep_out_of_it(kind):
    conv: Any = make_conv(kind, C, C, role="whole", kernel_size=1, rngs=rngs())
    x = jnp.asarray(feature_map())
    expected = conv(x)
    with over_channels("channel", 4):
        np.testing.assert_array_equal(conv(x), expected)
    assert set(Functional(conv).channel_axes.values()) == {None}


def test_groups_of_a_norm_stay_whole():
    both = both_ways(
        lambda: GroupNorm(C, 4, rngs=rngs()),
        feature_map(),
        count=2,
        fields=2,
        call=lambda norm, x: norm.silu(x),
    )
    assert_alike(both)


def attention(heads):
    return Attention(C, heads=heads, conv=conv_factory("dense"), rngs=rngs())


@pytest.mark.parametrize(("heads", "fields"), [(4, 2), (2, 2)])
def test_attention_is_the_same_on_shards(heads, fields):
    both = both_ways(lambda: attention(heads), feature_map(), count=2, fields=fields)
    assert_alike(both)


def primitives(layer, channels=C, *, count=2):
    """Names of what a layer does on shards, [2, 4, 4, channels] of all of them."""
    run = on_shards(
        lambda arrays: {"x": layer(arrays["x"])}, {"x": 3}, {"x": 3}, count=count
    )
    program = jax.make_jaxpr(run)({"x": jnp.zeros((2, 4, 4, channels))})
    return set(re.findall(r"= ([a-z_]+)\[", str(program)))


def test_whole_heads_need_no_exchange():
    exchanges = {"all_to_all", "all_gather"}
    names = {
        heads: primitives(
            Attention(C, heads=heads, conv=conv_factory("channel"), rngs=rngs())
        )
        for heads in (1, 2)
    }
    assert names[1] >= exchanges
    assert not names[2] & exchanges


def test_a_channel_convolution_never_gathers():
    names = primitives(make_conv("channel", C, C, rngs=rngs()))
    assert "ppermute" in names
    assert not names & {"all_gather", "all_to_all", "psum"}


def test_one_device_needs_no_context():
    with over_channels("channel", 1):
        assert channel_shards.current() is None
    with over_channels("channel", 2, fields=3):
        assert channel_shards.current() == Shards("channel", 2, 3)
    assert channel_shards.current() is None


def test_derivatives_of_derivatives_are_summed_too():
    """f = sum over channels of (a_c w)^3, w and f alike on all devices."""
    shards = Shards("channel", 4)

    def function(w, a):
        parts = (channel_shards.enter(w, shards) * a) ** 3
        return channel_shards.leave(jnp.sum(parts), shards)

    def run(arrays):
        of_w = jax.grad(lambda w: jax.grad(function)(w, arrays["a"]) ** 2)
        return {"w": of_w(arrays["w"])}

    a = np.arange(4, dtype=np.float32)
    arrays = {"w": jnp.float32(0.5), "a": jnp.asarray(a)}
    found = on_shards(run, {"w": None, "a": 0}, {"w": None}, count=4)(arrays)["w"]
    cubes = np.sum(a**3)
    expected = 2 * (3 * cubes * 0.5**2) * (6 * cubes * 0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("layer", "channels", "message"),
    [
        (
            lambda: GroupNorm(C, 2, rngs=rngs()),
            C,
            "norm groups=2 cannot stay whole: with fields=1 over 4 devices of the "
            "channel axis they must be a multiple of 4",
        ),
        (
            lambda: PrismConv(kernel_size=(1, 1, 5), rngs=rngs()),
            4,
            "1 positions of the channel axis a device are fewer than the 2 that a "
            "neighbour reads; use at most 2 devices on the channel axis",
        ),
        (
            lambda: PrismConv(2, 2, kernel_size=(1, 1, 3), rngs=rngs()),
            C,
            "maps are cut as fields=1, and a kernel of shape (1, 1, 3, 2, 2) has 2: "
            "cut them as the kernel's",
        ),
        (
            lambda: Conv(C, C, groups=2, kernel_init=zeros, rngs=rngs()),
            C,
            "groups=2 cannot be cut over 4 devices of the channel axis; choose a "
            "multiple of 4",
        ),
    ],
)
def test_what_cannot_be_cut_is_refused(layer, channels, message):
    # JAX adds lines of its own.
    with pytest.raises(ValueError, match=f"^{re.escape(message)}(\n|$)"):
        primitives(layer(), channels, count=4)


def test_tokens_that_cannot_be_shared_are_refused():
    attention = Attention(C, conv=conv_factory("channel"), rngs=rngs())
    message = "attention tokens (height * width)=3 cannot be cut over 2 devices"
    run = on_shards(
        lambda arrays: {"x": attention(arrays["x"])}, {"x": 3}, {"x": 3}, count=2
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        jax.eval_shape(run, {"x": jnp.zeros((1, 1, 3, C))})


@pytest.mark.parametrize("arguments", [("channel", 0), ("channel", 2, 0)])
def test_numbers_of_the_context_are_positive(arguments):
    with (
        pytest.raises(ValueError, match="=0 must be at least 1"),
        over_channels(*arguments),
    ):
        pass


@pytest.fixture
def soon_compiled():
    """Of a program that runs once, the compilation takes longest."""
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.slow
@pytest.mark.usefixtures("soon_compiled")
@pytest.mark.parametrize(
    ("kind", "fields", "padding", "count", "heads"),
    [
        ("deepprism", 1, "circular", 4, 1),
        ("deepprism", 1, "zero", 2, 4),
        ("deepprism", 1, "replicate", 4, 4),
        ("deepprism", 2, "circular", 2, 1),
        ("deepprism", 2, "replicate", 4, 8),
        ("prism_separable", 1, "circular", 2, 2),
        ("dense", 1, "circular", 4, 1),
    ],
)
def test_an_autoencoder_is_the_same_on_shards(kind, fields, padding, count, heads):
    def make():
        return AutoencoderKL(
            width=C,
            conv=kind,
            fields=fields,
            channel_padding=padding,
            downsamples=1,
            blocks=0,
            heads=heads,
            norm_groups=8,
            rngs=rngs(),
        )

    both = both_ways(
        make,
        feature_map(4, 4, channels=3),
        count=count,
        fields=fields,
        whole=("x", "y"),
        call=lambda model, x: model.reconstruct(x),
    )
    assert_alike(both, rtol=1e-4)
