"""One micro-batch of eq. (9): every term's gradient to the network that it is for.

The autoencoder's forward pass runs once. Its output y is cut before the last layer, so
that the gradients of the reconstruction and of the adversarial term are known apart at
that layer, where their ratio sets the adaptive weight, and then travel back together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from deepprism_jax import losses
from deepprism_jax.layers.functional import Functional
from deepprism_jax.models.codebook import Quantized, update_codebook
from deepprism_jax.ops import channel_shards, to_float
from deepprism_jax.training.config import LossConfig

LAST_LAYER = "decoder.conv_out."
CODES, USAGE = "codebook.codes", "codebook.usage"

Metrics = dict[str, jax.Array]


@dataclass(frozen=True)
class AdversarialPlan:
    """When the discriminator learns and when its judgement counts, in steps."""

    start: int
    ramp: int
    warmup: int

    @property
    def first_step(self) -> int:
        """The step at which the discriminator begins to learn."""
        return max(self.start - self.warmup, 0)


@dataclass(frozen=True)
class Objective:
    """The loss of eq. (9) on one micro-batch of one device.

    `axis_name` is the mapped axis, or axes, over which the batch is spread, or None.
    """

    autoencoder: Functional
    discriminator: Functional | None
    perceptual: losses.PerceptualDistance | None
    loss: LossConfig
    plan: AdversarialPlan
    axis_name: str | tuple[str, ...] | None = None

    def gradients(
        self,
        params: Mapping[str, Any],
        extra: Mapping[str, Any],
        frozen: Any,
        batch: jax.Array,
        keys: jax.Array,
        common_key: jax.Array,
        step: jax.Array,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, jax.Array], Metrics]:
        """Gradients like `params`, the new `extra`, revived codes, scalars to log.

        Revived codes are what to add to parameters of the autoencoder, by name: a dead
        code of a codebook that is learned by its gradient restarts elsewhere.

        Args:
            params, extra: as in `TrainState`.
            frozen: arrays of the perceptual network, or None.
            batch: images, uint8 [B, H, W, C].
            keys: one key an image, for the noise of its posterior.
            common_key: the same on all devices, for the codebook.
            step: number of this step, from 0.
        """
        u = to_float(batch)
        features, latent, terms, pull_features = self._encode_decode(
            params["autoencoder"], extra["buffers"], u, keys
        )
        last = {
            name: value
            for name, value in params["autoencoder"].items()
            if name.startswith(LAST_LAYER)
        }
        y, pull_last = jax.vjp(
            lambda last, features: self._last_layer(
                {**params["autoencoder"], **last}, extra["buffers"], features
            ),
            last,
            features,
        )
        metrics: Metrics = dict(terms)
        (_, pixel_metrics), (g, perceptual_grad) = jax.value_and_grad(
            lambda y, raw: self._fidelity(y, u, raw, frozen), (0, 1), has_aux=True
        )(y, params.get("perceptual"))
        metrics |= pixel_metrics
        last_grad, features_grad = pull_last(g)
        grads: dict[str, Any] = {}
        if self.discriminator is not None:
            adversarial, metrics_a = self._adversarial(
                params["discriminator"], y, pull_last, last_grad, step
            )
            last_grad, features_grad = jax.tree.map(
                jnp.add, (last_grad, features_grad), adversarial
            )
            grads["discriminator"], lecam, metrics_d = self._discriminate(
                params["discriminator"], extra.get("lecam"), u, y, step
            )
            metrics |= metrics_a | metrics_d
            if lecam is not None:
                extra = {**extra, "lecam": lecam}
        grads["autoencoder"] = pull_features(
            (features_grad, {name: self._weight_of(name) for name in terms})
        )
        for name, value in last_grad.items():
            grads["autoencoder"][name] += value
        if perceptual_grad is not None:
            grads["perceptual"] = perceptual_grad
        revived: dict[str, jax.Array] = {}
        if isinstance(latent, Quantized):
            extra, revived, metrics["codebook_used"] = self._update_codebook(
                params["autoencoder"], extra, latent, common_key
            )
        return grads, dict(extra), revived, metrics

    def _encode_decode(self, params, buffers, u, keys):
        def forward(params):
            model = self.autoencoder.bind({**params, **buffers})
            latent = model.encode(u)
            z = jax.vmap(lambda one, key: one.sample(key))(latent, keys)
            terms = self._latent_terms(latent)
            return (model.decode_features(z), terms), latent

        (features, terms), pull, latent = jax.vjp(forward, params, has_aux=True)
        return features, latent, terms, lambda cotangent: pull(cotangent)[0]

    def _latent_terms(self, latent) -> Metrics:
        if not isinstance(latent, Quantized):
            return {"kl": jnp.mean(latent.kl())}
        terms = {"commitment": losses.commitment_loss(latent.continuous, latent.codes)}
        if CODES in self.autoencoder.parameters:
            terms["codebook"] = losses.codebook_loss(latent.continuous, latent.codes)
        return terms

    def _weight_of(self, term: str) -> jax.Array:
        weights = {
            "kl": self.loss.kl_weight,
            "commitment": self.loss.commitment_weight,
            "codebook": 1.0,
        }
        return jnp.float32(weights[term])

    def _last_layer(self, params, buffers, features) -> jax.Array:
        model = self.autoencoder.bind({**params, **buffers})
        return model.decoder.conv_out(features).astype(jnp.float32)

    def _fidelity(self, y, u, raw, frozen) -> tuple[jax.Array, Metrics]:
        """Pixel and perceptual terms, the ones that compare y with u."""
        loss = self.loss
        total = losses.reconstruction_loss(u, y, loss.reconstruction, loss.reduction)
        error = jnp.mean(jnp.square(y - u), axis=(1, 2, 3))
        psnr = jnp.mean(10.0 * jnp.log10(4.0 / error))
        metrics = {"reconstruction": total, "psnr": psnr}
        if loss.ssim_weight > 0:
            metrics["structure"] = losses.structural_loss(u, y)
            total = total + loss.ssim_weight * metrics["structure"]
        if self.perceptual is not None:
            weights = None if raw is None else raw["layer_weights"]
            distance = jnp.mean(self.perceptual.apply(frozen, u, y, weights))
            metrics["perceptual"] = distance
            total = total + loss.perceptual_weight * distance
        return total, metrics

    def _adversarial(self, params, y, pull_last, fidelity_grad, step):
        """Gradient of the adversarial term at the last layer and before it."""
        schedule = losses.adversarial_schedule(step, self.plan.start, self.plan.ramp)
        discriminator = self.discriminator
        assert discriminator is not None

        def judge(y):
            loss, g = jax.value_and_grad(
                lambda y: losses.generator_loss(
                    discriminator.bind(params)(y), self.loss.adversarial
                )
            )(y)
            return loss, pull_last(g)

        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(judge, y))
        loss, pulled = lax.cond(schedule > 0, judge, lambda y: zeros, y)
        weight = jnp.float32(1.0)
        if self.loss.adaptive_weight:
            fidelity, against = self._mean((fidelity_grad, pulled[0]))
            weight = losses.adaptive_weight(
                self._all_channels(fidelity), self._all_channels(against)
            )
        # A zero gradient has no ratio: the schedule hides what adaptive_weight gives.
        weight = jnp.where(schedule > 0, weight, 0.0)
        factor = self.loss.adversarial_weight * schedule * weight
        metrics = {"adversarial": loss, "adversarial_factor": factor}
        return jax.tree.map(lambda g: (factor * g).astype(g.dtype), pulled), metrics

    def _discriminate(self, params, lecam, u, y, step):
        """Gradient of the discriminator's own loss; zero before its warm-up."""
        loss = self.loss
        discriminator = self.discriminator
        assert discriminator is not None
        y = lax.stop_gradient(y)

        def objective(params):
            critic = discriminator.bind(params)
            real, fake = critic(u), critic(y)
            total = losses.discriminator_loss(real, fake, loss.adversarial)
            metrics = {
                "discriminator": total,
                "logits_real": jnp.mean(real),
                "logits_fake": jnp.mean(fake),
            }
            if loss.r1_weight > 0:
                penalty = losses.r1_penalty(critic, u)
                metrics["r1"] = penalty
                total = total + loss.r1_weight * penalty
            averages = lecam
            if lecam is not None:
                before = losses.LeCamAverages(**lecam)
                regularizer = losses.lecam_regularizer(before, real, fake)
                metrics["lecam"] = regularizer
                total = total + loss.lecam_weight * regularizer
                averages = losses.lecam_update(before, real, fake)._asdict()
            return total, (averages, metrics)

        def learn(params):
            (_, (averages, metrics)), grads = jax.value_and_grad(
                objective, has_aux=True
            )(params)
            return grads, averages, metrics

        def rest(params):
            grads, _, metrics = jax.tree.map(
                jnp.zeros_like, jax.eval_shape(learn, params)
            )
            return grads, lecam, metrics

        begin = self.plan.first_step
        grads, averages, metrics = lax.cond(step >= begin, learn, rest, params)
        return grads, self._mean(averages), metrics

    def _update_codebook(self, params, extra, latent: Quantized, key):
        buffers = dict(extra["buffers"])
        learned = CODES in params
        before = params[CODES] if learned else buffers[CODES]
        codes, buffers[USAGE] = update_codebook(
            before,
            buffers[USAGE],
            latent,
            key,
            move=not learned,
            axis_name=self.axis_name,
        )
        revived = {CODES: codes - before} if learned else {}
        if not learned:
            buffers[CODES] = codes
        used = jnp.mean(buffers[USAGE] > 0.1)
        return {**extra, "buffers": buffers}, revived, used

    def _all_channels(self, last: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """The gradient of the last layer, whole where devices have parts of it."""
        axes, shards = self.autoencoder.channel_axes, channel_shards.current()
        return {
            name: gradient
            if shards is None or (axis := axes[name]) is None
            else lax.all_gather(gradient, shards.axis, axis=axis, tiled=True)
            for name, gradient in last.items()
        }

    def _mean(self, tree: Any) -> Any:
        return tree if self.axis_name is None else lax.pmean(tree, self.axis_name)
