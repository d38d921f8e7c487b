"""The loss of latent diffusion on one micro-batch of one device, and its gradients.

    x_t = alpha_t x_0 + sigma_t eps,   w(t) |network(x_t, t, label) - target|^2

(Ho et al., 2020; Rombach et al., 2022, eq. 2), with w by Hang et al., 2023.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from deepprism_jax.diffusion.prediction import Target, target_of
from deepprism_jax.diffusion.schedules import Schedule
from deepprism_jax.layers.functional import Functional, Values
from deepprism_jax.ops import to_float


def min_snr_weight(
    alpha: Float[Array, "*b"], sigma: Float[Array, "*b"], target: Target, least: float
) -> jax.Array:
    """Return the weight of a squared error, Min-SNR-gamma (Hang et al., 2023).

    That is min(SNR, least) for the error of x_0, where SNR = alpha^2 / sigma^2, and
    the same for what the network predicts: over SNR for `eps`, over SNR + 1 for `v`.
    """
    snr = jnp.square(alpha) / jnp.square(sigma)
    weight = jnp.minimum(snr, least)
    match target:
        case "x0":
            return weight
        case "eps":
            return weight / snr
        case "v":
            return weight / (snr + 1.0)


@dataclass(frozen=True)
class LatentDenoising:
    """The loss of one denoiser.

    Args:
        network: the U-Net.
        schedule: of the noise.
        target: what the network predicts.
        min_snr: see `min_snr_weight`; 0 weighs all times alike.
        class_dropout: share of labels that are withheld.
        classes: number of classes; the label after the last is that of none.
    """

    network: Functional
    schedule: Schedule
    target: Target
    min_snr: float = 0.0
    class_dropout: float = 0.0
    classes: int = 0

    def gradients(
        self,
        params: Mapping[str, Any],
        extra: Mapping[str, Any],
        frozen: Any,
        batch: Mapping[str, jax.Array],
        keys: jax.Array,
        common_key: jax.Array,
        step: jax.Array,
    ) -> tuple[dict[str, Any], Any, dict[str, Any], dict[str, jax.Array]]:
        """Return the gradients of a batch and its loss; see `training.gradients`.

        The batch is what `latents.LatentBatches` gives, or uint8 images to be diffused
        themselves: `{"image"}`; with `{"label"}` where there are classes.
        """
        del frozen, common_key, step

        shape = batch["image" if "image" in batch else "mean"].shape[1:]

        def draw(key: jax.Array) -> tuple[jax.Array, ...]:
            keys = jax.random.split(key, 5)
            return (
                jax.random.normal(keys[0], shape),
                jax.random.randint(keys[1], (), 0, self.schedule.steps),
                jax.random.normal(keys[2], shape),
                jax.random.uniform(keys[3]),
                keys[4],
            )

        fresh, t, eps, withheld, dropout_keys = jax.vmap(draw)(keys)
        labels = None
        if self.classes:
            labels = self.known(batch["label"], withheld < self.class_dropout)

        def loss(params: Values) -> jax.Array:
            values = {**params, **extra["buffers"]}
            x0 = self.network.bind(values).normalize(self.drawn(batch, fresh))
            errors = self.errors(values, x0, t, eps, labels, dropout_keys)
            if self.min_snr > 0:
                alpha, sigma = self.schedule.at(t, 1)
                errors *= min_snr_weight(alpha, sigma, self.target, self.min_snr)
            return jnp.mean(errors)

        value, grads = jax.value_and_grad(loss)(params["denoiser"])
        return {"denoiser": grads}, extra, {}, {"loss": value}

    def known(
        self, labels: Int[Array, " b"], withheld: Bool[Array, " b"] | bool = False
    ) -> jax.Array:
        """Return labels, that of no class where there is none or it is withheld."""
        return jnp.where(withheld | (labels < 0), self.classes, labels)

    @staticmethod
    def drawn(batch: Mapping[str, jax.Array], fresh: jax.Array) -> jax.Array:
        """Return latents of the posteriors of a batch, by standard normal numbers."""
        if "image" in batch:
            return to_float(batch["image"])
        mean = batch["mean"].astype(jnp.float32)
        if "std" not in batch:
            return mean
        return mean + batch["std"].astype(jnp.float32) * fresh

    def errors(
        self,
        values: Values,
        x0: Float[Array, "b h w c"],
        t: Int[Array, " b"],
        eps: Float[Array, "b h w c"],
        labels: Int[Array, " b"] | None,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Return the mean square error of what is predicted of each latent: [B]."""
        alpha, sigma = self.schedule.at(t, x0.ndim)
        x_t = alpha * x0 + sigma * eps
        network = self.network.bind(values)
        predicted = network(x_t, t, labels, dropout_keys=dropout_keys)
        target = target_of(self.target, x0, eps, alpha, sigma)
        return jnp.mean(jnp.square(predicted - target), axis=(1, 2, 3))
