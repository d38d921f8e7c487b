"""A wider model begins as the same function, and what cannot is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from entry_points import random_model
from flax import nnx

from deepprism_jax.layers.functional import Functional, values_of
from deepprism_jax.models import AutoencoderKL, AutoencoderVQ
from deepprism_jax.models.sinddm import SinDDM
from deepprism_jax.models.unet import UNet
from deepprism_jax.weights.transfer import transfer, transferred

SMALL = {"width": 8, "norm_groups": 2, "downsamples": 0, "blocks": 0}


def small(cls=AutoencoderKL, **options):
    options = {**SMALL, **options}
    return random_model(lambda: cls(**options, rngs=nnx.Rngs(0)), 1)


def reconstruct(model, images):
    network = Functional(model)
    run = jax.jit(lambda values, x: network.bind(values).reconstruct(x))
    return np.asarray(run(values_of(model), images))


def images_of(side=4):
    shape = (1, side, side, 3)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def check_same(model, wide, images):
    before, after = reconstruct(model, images), reconstruct(wide, images)
    assert np.abs(before).max() > 0.1
    np.testing.assert_allclose(after, before, atol=1e-5 * np.abs(before).max())


def test_channels_are_repeated_and_sums_over_them_shared_out():
    model = small(fields=2)
    narrow, wide = values_of(model), values_of(transfer(model, {"width": 16}))

    def copies(name):  # of [..., 16] channels: two fields of two copies of four
        return np.asarray(wide[name]).reshape(*wide[name].shape[:-1], 2, 2, 4)

    for name in ("encoder.conv_in.kernel", "decoder.norm_out.scale"):
        given = np.asarray(narrow[name]).reshape(*narrow[name].shape[:-1], 2, 1, 4)
        np.testing.assert_array_equal(
            copies(name), np.broadcast_to(given, copies(name).shape)
        )
    name = "decoder.conv_out.kernel"
    out = np.asarray(wide[name]).reshape(3, 3, 2, 2, 4, 3)
    given = np.asarray(narrow[name]).reshape(3, 3, 2, 4, 3)
    np.testing.assert_allclose(out.sum(3), given, atol=1e-6)
    assert np.abs(out[:, :, :, 0] - out[:, :, :, 1]).max() > 0.1 * np.abs(given).max()
    name = "encoder.body.1.attention.query.kernel"
    np.testing.assert_allclose(wide[name], narrow[name] / np.sqrt(2), rtol=1e-6)


@pytest.mark.slow
def test_a_wider_model_is_the_same_function():
    model = small(fields=2)
    wide = transfer(model, {"width": 16})
    assert wide.options["norm_groups"] == 4
    check_same(model, wide, images_of())


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"conv": "deepprism", "downsamples": 1, "blocks": 1},
        {"conv": "dense"},
        {"conv": "depthwise_separable", "blocks": 1},
        {"conv": "low_rank", "rank": 2},
        {"conv": "prism_separable"},
        {"fields": 2, "heads": 2},
    ],
    ids=str,
)
def test_so_is_one_of_any_kind(options):
    model = small(**options)
    check_same(model, transfer(model, {"width": 24}), images_of())


@pytest.mark.slow
def test_so_is_one_of_a_codebook_and_a_denoiser():
    model = small(AutoencoderVQ, codebook_size=8)
    check_same(model, transfer(model, {"width": 16}), images_of())
    one = random_model(lambda: SinDDM(width=4, embedding=4, rngs=nnx.Rngs(0)), 2)
    x, at = jnp.asarray(images_of()), jnp.array([3])
    wide = transfer(one, {"width": 12})
    np.testing.assert_allclose(wide(x, at, at), one(x, at, at), atol=1e-5)


@pytest.mark.slow
def test_copies_part_when_they_are_trained():
    wide = transfer(small(), {"width": 16})
    network, values = Functional(wide), values_of(wide)

    def loss(values):
        return (
            (network.bind(values).reconstruct(jnp.asarray(images_of())) - 0.5) ** 2
        ).mean()

    grads = jax.grad(loss)(values)
    for name in ("encoder.conv_in.kernel", "decoder.norm_out.scale"):
        one, other = np.split(np.asarray(grads[name]), 2, axis=-1)
        assert np.abs(one - other).max() > 0.01 * np.abs(one).max()


@pytest.fixture(scope="module")
def model():
    return small()


def described(cls=AutoencoderKL, **options):
    options = {**SMALL, **options}
    return nnx.eval_shape(lambda: cls(**options, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 12, "norm_groups": 2}, "width=12 is no multiple of the 8"),
        ({"fields": 2}, "fields=2: the weights are of fields=1"),
        ({"blocks": 1}, "blocks=1: the weights are of blocks=0"),
        ({"conv": "dense"}, "conv=dense: the weights are of conv=deepprism"),
        ({"z_channels": 4}, "z_channels=4: the weights are of z_channels=3"),
    ],
)
def test_what_cannot_be_carried_over_is_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        transferred(model, described(**options))


def test_what_is_not_the_same_function_is_told(model):
    wanted = described(width=16, norm_groups=2)
    _, (note,) = transferred(model, wanted)
    assert note == "norm_groups=2: with 4 it would begin as what it was"


def test_a_wider_u_net_is_refused():
    options = {"multipliers": (1,), "blocks": 1, "attention": (), "norm_groups": 2}
    one, wider = (
        nnx.eval_shape(
            lambda w=w: UNet(channels=3, width=w, **options, rngs=nnx.Rngs(0))
        )
        for w in (8, 16)
    )
    with pytest.raises(ValueError, match="layers of time depend on its width"):
        transferred(one, wider)


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ({"wdth": 16}, "wdth is no option; choose one of"),
        ({"width": "16"}, "width='16' must be an integer"),
    ],
)
def test_what_is_no_option_is_refused(to, message):
    with pytest.raises(ValueError, match=message):
        transfer(small(), to)
