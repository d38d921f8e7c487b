"""Each term of eq. (9) reaches the networks that it is for, and no other."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deepprism_jax import losses
from deepprism_jax.layers.functional import Functional, values_of
from deepprism_jax.models import AutoencoderKL, AutoencoderVQ
from deepprism_jax.models.discriminator import PatchDiscriminator
from deepprism_jax.ops import to_float
from deepprism_jax.training.autoencoder.objective import AdversarialPlan, Objective
from deepprism_jax.training.config import LossConfig

QUIET = LossConfig(kl_weight=0.0, commitment_weight=0.0, adversarial_weight=0.0)
# Dense, because its programs compile fastest; the terms do not know the difference.
TINY = {
    "conv": "dense",
    "width": 8,
    "blocks": 0,
    "downsamples": 1,
    "norm_groups": 4,
    "z_channels": 2,
    "attention": False,
}
AT_ONCE = AdversarialPlan(start=0, ramp=0, warmup=0)


class Features:
    """A frozen feature network of two layers: x times a number, and its square."""

    channels = (3, 3)

    def apply(self, params, images):
        first = params["gain"] * images + 0.1
        return [first, first**2]


def make(loss, *, latent="kl", critic=False, perceptual=None, plan=AT_ONCE):
    """An objective on tiny networks, with its parameters and extra state."""
    if latent == "kl":
        model = AutoencoderKL(**TINY, rngs=nnx.Rngs(0))
    else:
        model = AutoencoderVQ(
            **TINY, codebook_size=4, codebook_update=latent, rngs=nnx.Rngs(0)
        )
    autoencoder, values = Functional(model), values_of(model)
    params = {"autoencoder": {name: values[name] for name in autoencoder.parameters}}
    extra = {"buffers": {name: values[name] for name in autoencoder.buffers}}
    discriminator = None
    if critic:
        network = PatchDiscriminator(width=4, layers=1, norm_groups=4, rngs=nnx.Rngs(1))
        discriminator = Functional(network)
        params["discriminator"] = values_of(network)
    if perceptual is not None and perceptual.learnable:
        params["perceptual"] = {"layer_weights": perceptual.init()}
    if loss.lecam_weight:
        extra["lecam"] = losses.lecam_init()._asdict()
    objective = Objective(autoencoder, discriminator, perceptual, loss, plan)
    return objective, params, extra


def images_and_keys(batch=2, side=8):
    pixels = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3))
    keys = jax.random.split(jax.random.key(3), batch)
    return jnp.asarray(pixels, jnp.uint8), keys


def gradients(objective, params, extra, *, step=0, side=8):
    images, keys = images_and_keys(side=side)
    frozen = None if objective.perceptual is None else objective.perceptual.frozen
    return jax.jit(objective.gradients)(
        params, extra, frozen, images, keys, jax.random.key(9), jnp.int32(step)
    )


def reached(grads):
    """Parts of the networks with a gradient, by the first word of the name."""
    return {
        f"{network}.{name.split('.')[0]}"
        for network, tree in grads.items()
        for name, gradient in tree.items()
        if float(jnp.abs(gradient).max()) > 0
    }


ENCODER = {"autoencoder.encoder", "autoencoder.quant_conv"}
DECODER = {"autoencoder.post_quant_conv", "autoencoder.decoder"}


def test_reconstruction_reaches_encoder_and_decoder():
    grads, _, _, metrics = gradients(*make(QUIET))
    assert reached(grads) == ENCODER | DECODER
    assert set(metrics) == {"reconstruction", "psnr", "kl"}


def no_reconstruction(monkeypatch):
    """Leave out the pixel term, keeping its place."""
    monkeypatch.setattr(
        losses, "reconstruction_loss", lambda u, y, *_: 0.0 * jnp.sum(y)
    )


def test_kl_reaches_the_encoder_alone(monkeypatch):
    no_reconstruction(monkeypatch)
    grads, *_ = gradients(*make(dataclasses.replace(QUIET, kl_weight=1.0)))
    assert reached(grads) == ENCODER


def test_commitment_reaches_the_encoder_alone(monkeypatch):
    no_reconstruction(monkeypatch)
    loss = dataclasses.replace(QUIET, commitment_weight=1.0)
    grads, _, revived, _ = gradients(*make(loss, latent="ema"))
    assert reached(grads) == ENCODER
    assert not revived


def test_codebook_term_reaches_the_codes_alone(monkeypatch):
    no_reconstruction(monkeypatch)
    grads, _, revived, _ = gradients(*make(QUIET, latent="gradient"))
    assert reached(grads) == {"autoencoder.codebook"}
    assert set(revived) == {"codebook.codes"}


def test_reconstruction_passes_straight_through_the_codebook():
    grads, extra, _, _ = gradients(*make(QUIET, latent="ema"))
    assert reached(grads) == ENCODER | DECODER
    assert set(extra["buffers"]) == {"codebook.codes", "codebook.usage"}


@pytest.mark.parametrize("heads", [None, (jnp.ones(3), jnp.ones(3))])
def test_perceptual_reaches_the_autoencoder_and_its_layer_weights(monkeypatch, heads):
    no_reconstruction(monkeypatch)
    network = losses.PerceptualDistance(Features(), {"gain": jnp.float32(2.0)}, heads)
    loss = dataclasses.replace(QUIET, perceptual_weight=1.0)
    objective, params, extra = make(loss, perceptual=network)
    grads, *_ = gradients(objective, params, extra)
    learned = {"perceptual.layer_weights"} if heads is None else set()
    assert reached(grads) == ENCODER | DECODER | learned


def test_structure_reaches_the_autoencoder_by_its_weight(monkeypatch):
    no_reconstruction(monkeypatch)
    loss = dataclasses.replace(QUIET, ssim_weight=1.0)
    grads, _, _, metrics = gradients(*make(loss), side=12)
    assert reached(grads) == ENCODER | DECODER
    assert 0 < metrics["structure"] < 2
    loss = dataclasses.replace(QUIET, ssim_weight=2.0)
    twice, *_ = gradients(*make(loss), side=12)
    for name, grad in grads["autoencoder"].items():
        np.testing.assert_allclose(twice["autoencoder"][name], 2 * grad, rtol=1e-3)


def test_adversarial_reaches_the_autoencoder_and_not_the_discriminator(monkeypatch):
    no_reconstruction(monkeypatch)
    monkeypatch.setattr(
        losses,
        "discriminator_loss",
        lambda *logits: sum(0.0 * x.sum() for x in logits[:2]),
    )
    loss = dataclasses.replace(QUIET, adversarial_weight=1.0, adaptive_weight=False)
    grads, *_ = gradients(*make(loss, critic=True))
    assert reached(grads) == ENCODER | DECODER


@pytest.mark.parametrize(
    "term",
    [{}, {"r1_weight": 1.0}, {"lecam_weight": 1.0}],
    ids=["hinge", "r1", "lecam"],
)
def test_the_discriminators_terms_reach_it_alone(monkeypatch, term):
    no_reconstruction(monkeypatch)
    monkeypatch.setattr(losses, "generator_loss", lambda fake, _: 0.0 * fake.sum())
    if term:
        monkeypatch.setattr(
            losses,
            "discriminator_loss",
            lambda *logits: sum(0.0 * x.sum() for x in logits[:2]),
        )
    loss = dataclasses.replace(
        QUIET, adversarial_weight=1.0, adaptive_weight=False, **term
    )
    objective, params, extra = make(loss, critic=True)
    if "lecam" in extra:
        # From zero, only logits on their own side of it are pulled.
        extra["lecam"] = {"real": jnp.float32(5.0), "fake": jnp.float32(-5.0)}
    grads, after, _, metrics = gradients(objective, params, extra)
    networks = {name.split(".")[0] for name in reached(grads)}
    assert networks == {"discriminator"}
    assert set(after) == set(extra)
    for name in term:
        assert name.removesuffix("_weight") in metrics


def test_the_combined_gradient_is_that_of_one_weighted_loss():
    loss = LossConfig(kl_weight=0.01, adversarial_weight=0.5)
    objective, params, extra = make(loss, critic=True)
    grads, _, _, metrics = gradients(objective, params, extra)
    images, keys = images_and_keys()
    u = to_float(images)
    factor = metrics["adversarial_factor"]
    assert factor > 0

    def explicit(values):
        model = objective.autoencoder.bind(values)
        posterior = model.encode(u)
        z = jax.vmap(lambda one, key: one.sample(key))(posterior, keys)
        y = model.decode(z)
        critic = objective.discriminator.bind(params["discriminator"])
        return (
            jnp.mean((y - u) ** 2)
            + 0.01 * posterior.kl().mean()
            - factor * jnp.mean(critic(y))
        )

    expected = jax.jit(jax.grad(explicit))(params["autoencoder"])
    for name, gradient in grads["autoencoder"].items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-3, atol=1e-6)


def test_the_adaptive_weight_levels_the_gradients_at_the_last_layer():
    loss = dataclasses.replace(QUIET, adversarial_weight=1.0)
    objective, params, extra = make(loss, critic=True)
    adaptive, _, _, metrics = gradients(objective, params, extra)
    plain, *_ = gradients(*make(QUIET))
    name = "decoder.conv_out.kernel"
    bias = "decoder.conv_out.bias"

    def length(a, b):
        return np.sqrt(np.sum(np.square(a)) + np.sum(np.square(b)))

    pixel = [np.asarray(plain["autoencoder"][n]) for n in (name, bias)]
    both = [np.asarray(adaptive["autoencoder"][n]) for n in (name, bias)]
    adversarial = [b - p for b, p in zip(both, pixel, strict=True)]
    assert length(*adversarial) == pytest.approx(length(*pixel), rel=1e-3)
    assert metrics["adversarial_factor"] > 0


@pytest.mark.parametrize(
    ("step", "learns", "factor"),
    [
        pytest.param(1, False, 0.0, marks=pytest.mark.slow),
        (2, True, 0.0),
        pytest.param(4, True, 0.5, marks=pytest.mark.slow),
    ],
)
def test_the_discriminator_warms_up_before_it_counts(step, learns, factor):
    loss = dataclasses.replace(QUIET, adversarial_weight=1.0, adaptive_weight=False)
    plan = AdversarialPlan(start=4, ramp=2, warmup=2)
    grads, _, _, metrics = gradients(*make(loss, critic=True, plan=plan), step=step)
    assert ("discriminator" in {n.split(".")[0] for n in reached(grads)}) == learns
    assert metrics["adversarial_factor"] == pytest.approx(factor)
