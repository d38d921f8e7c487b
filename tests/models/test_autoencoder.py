import json
import math
import re
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deepprism_jax.layers import ConvKind
from deepprism_jax.layers.functional import Functional
from deepprism_jax.models import AutoencoderKL, AutoencoderVQ
from deepprism_jax.models.posterior import DiagonalGaussian

KINDS = get_args(ConvKind)
TINY = {
    "width": 8,
    "groups": 4,
    "rank": 4,
    "downsamples": 1,
    "blocks": 0,
    "norm_groups": 4,
}

# Half the time to compile; the programs run once.
QUICK = {"xla_backend_optimization_level": 0}

# Table 3: width, (exact count, printed) of the dense one and of DeepPrism.
TABLE_3 = {
    128: ((6_358_975, 6.36e6), (29_559, 29.5e3)),
    256: ((25_366_335, 25.3e6), (57_847, 57.8e3)),
    512: ((101_326_399, 101e6), (114_423, 114e3)),
    1024: ((405_027_903, 405e6), (227_575, 227e3)),
}


def make(model=AutoencoderKL, **options):
    """A tiny model of shapes alone."""
    options = TINY | options
    return nnx.eval_shape(lambda: model(**options, rngs=nnx.Rngs(0)))


def with_random_values(model):
    """Values for its shapes; to draw the initial ones would take longer to compile."""
    rng = np.random.default_rng(0)
    functional = Functional(model)
    return functional.bind(
        {
            name: jnp.asarray(rng.normal(size=value.shape) * 0.2, jnp.float32)
            for name, value in functional.shapes.items()
        }
    )


def parameters(**options):
    model = nnx.eval_shape(lambda: AutoencoderKL(**options, rngs=nnx.Rngs(0)))
    shapes = Functional(model).shapes.values()
    return sum(math.prod(value.shape) for value in shapes)


def abstract(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize("width", TABLE_3)
def test_parameters_are_those_of_table_3(width):
    for kind, (exact, printed) in zip(
        ("dense", "deepprism"), TABLE_3[width], strict=True
    ):
        assert parameters(width=width, conv=kind) == exact
        # Three digits are printed, and most of them cut, not rounded.
        assert abs(exact / printed - 1) < 0.004


def test_parameters_in_closed_form():
    width = 64
    dense = 386 * width**2 + 271 * width + 63
    assert parameters(width=width, conv="dense") == dense
    assert parameters(width=width, conv="deepprism") == 221 * width + 1271


STABLE_DIFFUSION = {
    "width": 128,
    "multipliers": (1, 2, 4, 4),
    "conv": "dense",
    "downsamples": 3,
    "z_channels": 4,
}


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 83_653_863),  # Stable Diffusion's
        # Latent diffusion's at factor 4.
        ({"multipliers": (1, 2, 4), "downsamples": 2, "z_channels": 3}, 55_312_063),
    ],
)
def test_parameters_are_those_of_published_autoencoders(changes, count):
    assert parameters(**STABLE_DIFFUSION | changes) == count


@pytest.mark.parametrize(
    ("model", "kind"), [(AutoencoderKL, "deepprism"), (AutoencoderVQ, "dense")]
)
def test_widths_may_differ_by_level(model, kind):
    model = make(model, conv=kind, blocks=1, multipliers=(1, 2))
    model = with_random_values(model)
    x = abstract(2, 4, 6, 3)
    z = jax.eval_shape(lambda x: model.encode(x).mode(), x)
    assert jax.eval_shape(model.decode_features, z).shape == (2, 4, 6, 8)
    assert Functional(model).shapes["encoder.norm_out.scale"].shape == (16,)


@pytest.mark.parametrize(
    "kind",
    [
        kind
        if kind in ("dense", "deepprism", "prism_separable")
        else pytest.param(kind, marks=pytest.mark.slow)
        for kind in KINDS
    ],
)
def test_every_kind_reconstructs(kind):
    model = with_random_values(make(conv=kind))
    x = jax.random.uniform(jax.random.key(0), (2, 4, 6, 3), minval=-1.0)
    y = jax.jit(lambda x: model.reconstruct(x), compiler_options=QUICK)(x)
    assert y.shape == x.shape
    assert y.dtype == jnp.float32
    assert np.isfinite(y).all()
    assert np.std(y) > 1e-3


@pytest.mark.parametrize("model", [AutoencoderKL, AutoencoderVQ])
@pytest.mark.parametrize(
    ("channels", "downsamples"),
    [
        (1, 0),
        pytest.param(2, 1, marks=pytest.mark.slow),
        pytest.param(3, 2, marks=pytest.mark.slow),
        (4, 3),
    ],
)
def test_shapes_of_images_and_codes(model, channels, downsamples):
    model = with_random_values(
        make(model, image_channels=channels, downsamples=downsamples, z_channels=5)
    )
    factor = model.factor
    assert factor == 2**downsamples
    x = abstract(2, 2 * factor, 3 * factor, channels)
    z = jax.eval_shape(lambda x: model.encode(x).mode(), x)
    assert z.shape == (2, 2, 3, 5)
    assert jax.eval_shape(model.decode, z).shape == x.shape
    assert jax.eval_shape(model.reconstruct, x).shape == x.shape
    features = jax.eval_shape(model.decode_features, z)
    assert features.shape == (*x.shape[:-1], 8)


def test_vq_reconstructs_from_the_nearest_codes(monkeypatch):
    monkeypatch.setattr(AutoencoderVQ, "decode", lambda _, z: z)
    options = {"conv": "channel", "codebook_size": 7, "downsamples": 0}
    model = with_random_values(make(AutoencoderVQ, **options))
    x = jax.random.uniform(jax.random.key(0), (1, 4, 4, 3), minval=-1.0)
    (z, codes, indices), decoded = jax.jit(
        lambda x: (model.encode(x), model.reconstruct(x)), compiler_options=QUICK
    )(x)
    book = np.asarray(model.codebook.codes[...])
    distances = np.linalg.norm(np.asarray(z)[..., None, :] - book, axis=-1)
    np.testing.assert_array_equal(indices, distances.argmin(-1))
    np.testing.assert_array_equal(codes, book[indices])
    np.testing.assert_array_equal(decoded, codes)


def test_attention_can_be_left_out():
    # In the middle of either network: a norm of 2 C and four 1x1 prisms.
    with_it, without = (
        parameters(**TINY, conv="deepprism", attention=attention)
        for attention in (True, False)
    )
    assert with_it - without == 2 * (2 * 8 + 16)
    model = with_random_values(make(attention=False))
    assert jax.eval_shape(model.reconstruct, abstract(1, 4, 4, 3)).shape == (1, 4, 4, 3)


def test_computes_in_bfloat16_and_gives_float32():
    model = with_random_values(make(dtype=jnp.bfloat16))
    assert {v.dtype for v in Functional(model).shapes.values()} == {jnp.dtype("f4")}
    posterior = jax.eval_shape(model.encode, abstract(1, 4, 4, 3))
    assert posterior.mean.dtype == posterior.logvar.dtype == jnp.float32
    features = jax.eval_shape(model.decode_features, posterior.mean)
    assert features.dtype == jnp.bfloat16
    assert jax.eval_shape(model.decode, posterior.mean).dtype == jnp.float32


@pytest.mark.parametrize("model", [AutoencoderKL, AutoencoderVQ])
def test_options_are_plain_and_make_the_same_model(model):
    different = {"multipliers": (2, 2), "downsample_padding": "after"}
    first = make(model, conv="low_rank", dtype=jnp.bfloat16, **different)
    options = json.loads(json.dumps(dict(first.options)))
    assert options["dtype"] == "bfloat16"
    second = make(model, **options)
    assert dict(second.options) == dict(first.options)
    assert Functional(second).shapes == Functional(first).shapes


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (1, 8, 8, 1),
            "images have 1 channels, the autoencoder was made for 3: set "
            "image_channels=1",
        ),
        (
            (1, 8, 10, 3),
            "image size 8x10 is not divisible by the factor 4; crop or resize to 8x8",
        ),
        (
            (1, 3, 9, 3),
            "image size 3x9 is not divisible by the factor 4; crop or resize to 4x8",
        ),
    ],
)
def test_images_must_fit(shape, message):
    model = make(downsamples=2)
    for run in (model.encode, model.reconstruct):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            run(jnp.zeros(shape))


def test_codes_must_fit():
    model = make(z_channels=5)
    message = "codes have 3 channels, the autoencoder was made for 5: set z_channels=3"
    for run in (model.decode, model.decode_features):
        with pytest.raises(ValueError, match=f"^{message}$"):
            run(jnp.zeros((1, 4, 4, 3)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_channels": 0}, "image_channels=0 must be at least 1"),
        ({"width": 0}, "width=0 must be at least 1"),
        ({"downsamples": -1}, "downsamples=-1 must be at least 0"),
        ({"blocks": -1}, "blocks=-1 must be at least 0"),
        ({"z_channels": 0}, "z_channels=0 must be at least 1"),
        (
            {"multipliers": (1, 2, 4)},
            "multipliers=(1, 2, 4) must be one positive integer a level, 2 of them "
            "(downsamples=1), or none",
        ),
        (
            {"multipliers": (1, 0)},
            "multipliers=(1, 0) must be one positive integer a level, 2 of them "
            "(downsamples=1), or none",
        ),
        (
            {"multipliers": (1, 2)},
            "blocks=0 leaves no block to change the width in: with multipliers=(1, 2) "
            "it must be at least 1",
        ),
        (
            {"norm_groups": 3},
            "norm groups=3 must divide C=8; choose one of [1, 2, 4, 8]",
        ),
        ({"heads": 3}, "heads=3 must divide C=8; choose one of [1, 2, 4, 8]"),
        ({"fields": 3}, "fields=3 must divide C=8; choose one of [1, 2, 4, 8]"),
    ],
)
def test_options_that_contradict(options, message):
    # JAX adds lines of its own to what is raised while it traces.
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}(\n|$)"):
        make(**options)


def test_posterior_splits_and_clips_the_moments():
    moments = jnp.array([1.0, 2.0, -40.0, 30.0]).reshape(1, 1, 1, 4)
    posterior = DiagonalGaussian.from_moments(moments)
    np.testing.assert_array_equal(posterior.mean.ravel(), [1.0, 2.0])
    np.testing.assert_array_equal(posterior.logvar.ravel(), [-30.0, 20.0])
    np.testing.assert_array_equal(posterior.mode(), posterior.mean)


def test_posterior_samples_are_normal_and_differentiable():
    mean, logvar = jnp.float32(3.0), jnp.log(jnp.float32(4.0))
    shape = (100, 10, 10, 1)
    posterior = DiagonalGaussian(jnp.full(shape, mean), jnp.full(shape, logvar))
    z = posterior.sample(jax.random.key(0))
    assert float(z.mean()) == pytest.approx(3.0, abs=0.08)
    assert float(z.std()) == pytest.approx(2.0, rel=0.03)
    np.testing.assert_array_equal(z, posterior.sample(jax.random.key(0)))
    assert not np.array_equal(z, posterior.sample(jax.random.key(1)))

    gradients = jax.grad(lambda p: p.sample(jax.random.key(0)).sum())(posterior)
    np.testing.assert_array_equal(gradients.mean, 1.0)
    np.testing.assert_allclose(
        gradients.logvar, 0.5 * (np.asarray(z) - 3.0), rtol=1e-4, atol=1e-5
    )


def test_posterior_kl_is_one_number_an_image():
    rng = np.random.default_rng(0)
    mean, logvar = rng.normal(size=(2, 3, 2, 2, 4)).astype(np.float32)
    kl = DiagonalGaussian(jnp.asarray(mean), jnp.asarray(logvar)).kl()
    terms = mean**2 + np.exp(logvar) - 1 - logvar
    np.testing.assert_allclose(kl, 0.5 * terms.sum((1, 2, 3)), rtol=1e-5)
