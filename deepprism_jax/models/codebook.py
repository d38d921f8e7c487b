"""The codebook of a vector-quantised autoencoder (van den Oord et al., 2017)."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from deepprism_jax.losses.vq import straight_through

CodebookUpdate = Literal["ema", "gradient"]


class Buffer(nnx.Variable):
    """A value that belongs to a module but is not trained by gradients."""


class Quantized(NamedTuple):
    """Codes of a batch of images."""

    continuous: jax.Array
    """What the encoder gave: [..., h, w, z]."""
    codes: jax.Array
    """The nearest code at every position: [..., h, w, z]."""
    indices: jax.Array
    """Its number in the codebook: [..., h, w]."""

    def mode(self) -> jax.Array:
        """The codes, with gradients straight through to the encoder."""
        return straight_through(self.continuous, self.codes)

    def sample(self, key: jax.Array) -> jax.Array:
        """The codes: quantisation has no noise, the key is not used."""
        del key
        return self.mode()


class Codebook(nnx.Module):
    """`size` codes of `channels` numbers, with a record of how much each is used.

    With `update="ema"` the codes are moving averages of what the encoder assigns to
    them; with `"gradient"` they are parameters that the codebook loss moves.
    Either way `usage`, the moving average of assignments a step, tells dead codes.
    """

    def __init__(
        self,
        size: int,
        channels: int,
        *,
        update: CodebookUpdate = "ema",
        rngs: nnx.Rngs,
    ):
        if size < 2:
            raise ValueError(f"codebook_size={size} must be at least 2")
        if update not in ("ema", "gradient"):
            raise ValueError(
                f"codebook_update={update!r} is unknown; choose 'ema' or 'gradient'"
            )
        codes = jax.random.normal(rngs.params(), (size, channels))
        self.codes = (Buffer if update == "ema" else nnx.Param)(codes)
        self.usage = Buffer(jnp.ones((size,)))
        self.update = update

    def quantize(self, z: Float[Array, "*b h w z"]) -> Quantized:
        """Replace every vector by its nearest code, in the Euclidean distance."""
        z = z.astype(jnp.float32)
        codes = self.codes[...]
        # An accelerator's default precision would pick other codes than the nearest.
        product = jnp.matmul(z, codes.T, precision="highest")
        distance = jnp.sum(codes**2, axis=-1) - 2.0 * product
        indices = jnp.argmin(distance, axis=-1)
        return Quantized(z, codes[indices], indices)

    def lookup(self, indices: Int[Array, "*b h w"]) -> Float[Array, "*b h w z"]:
        """Codes by their numbers."""
        return self.codes[...][indices]


def update_codebook(
    codes: Float[Array, "k z"],
    usage: Float[Array, " k"],
    quantized: Quantized,
    key: jax.Array,
    *,
    move: bool,
    decay: float = 0.99,
    dead_below: float = 0.03,
    axis_name: str | tuple[str, ...] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """One step of the moving averages, then revival of dead codes.

    A code moves towards the mean of the vectors assigned to it, weighted by how many
    they are against its usage (Razavi et al., 2019, appendix A.1, with the sums divided
    out). A code whose usage fell below `dead_below`, as a share of an even use, starts
    anew at a random vector of the batch (Dhariwal et al., 2020).

    Args:
        codes, usage: the codebook's state.
        quantized: this device's part of the batch.
        key: the same on all devices.
        move: False leaves the living codes to the gradient.
        decay: of the moving averages.
        dead_below: share of an even use below which a code is dead.
        axis_name: mapped axis or axes over which the batch is spread, if any.
    """
    size, channels = codes.shape
    vectors = lax.stop_gradient(quantized.continuous).reshape(-1, channels)
    assigned = jax.nn.one_hot(quantized.indices.reshape(-1), size)
    counts = assigned.sum(0)
    sums = jnp.matmul(assigned.T, vectors, precision="highest")
    here, total = vectors.shape[0], vectors.shape[0]
    first: jax.Array | int = 0
    if axis_name is not None:
        total *= lax.axis_size(axis_name)
        first = lax.axis_index(axis_name) * here
    # Places in the whole batch, so that the codes do not depend on who has which part.
    places = jax.random.randint(key, (size,), 0, total) - first
    mine = (places >= 0) & (places < here)
    found = vectors[jnp.clip(places, 0, here - 1)]
    candidates = jnp.where(mine[:, None], found, 0.0)
    if axis_name is not None:
        counts, sums, candidates = lax.psum((counts, sums, candidates), axis_name)
    even = total / size
    fresh = decay * usage + (1.0 - decay) * counts / even
    if move:
        share = (1.0 - decay) * (counts / even) / jnp.maximum(fresh, 1e-6)
        mean = sums / jnp.maximum(counts, 1.0)[:, None]
        codes = codes + share[:, None] * (mean - codes)
    dead = fresh < dead_below
    codes = jnp.where(dead[:, None], candidates, codes)
    return codes, jnp.where(dead, 1.0, fresh)
