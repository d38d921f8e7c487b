"""Drawing from a denoiser of latents: seeds and labels to latents, latents to images.

An image has its noise by its seed, and so depends on nothing else that is drawn with
it. `Drawer` draws over a mesh and a few steps a call, so that somebody who waits can be
told how far it is, and can break off.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, UInt8

from deepprism_jax.diffusion.guidance import begun, guided, keeping
from deepprism_jax.diffusion.prediction import Target, denoised
from deepprism_jax.diffusion.samplers import (
    Denoise,
    Memory,
    Path,
    Stepper,
    advance,
    at_first,
    fold_in,
    normal,
    path_of,
)
from deepprism_jax.diffusion.schedules import Schedule
from deepprism_jax.layers.functional import Functional, values_of
from deepprism_jax.models import AutoencoderVQ
from deepprism_jax.ops import to_uint8
from deepprism_jax.training.sharding import replicated, split_batch, spread

Size = tuple[int, int]

CALLS = 25
"""Into how many calls the steps of a batch are cut, at most."""


class Given(NamedTuple):
    """A latent to begin with, of the autoencoder, the same for all that is drawn."""

    latent: Float[Array, "h w c"] | Float[np.ndarray, "h w c"]
    free: Bool[Array, "h w 1"] | Bool[np.ndarray, "h w 1"] | None = None
    """Where it may change; None is everywhere."""


def make_denoise(
    model: Any,
    schedule: Schedule,
    target: Target,
    labels: Int[Array, " b"] | None,
    guidance: float = 1.0,
    given: Given | None = None,
    noise: Float[Array, "b h w c"] | None = None,
) -> Denoise:
    """Return the denoiser of `diffusion.samplers`.

    Args:
        model: the U-Net.
        schedule: of the noise.
        target: what it predicts.
        labels: class of each; the number of classes, or None, is no class.
        guidance: scale of classifier-free guidance; 1 is none.
        given: what stays where it is not free.
        noise: that each known latent is seen through.

    Raises:
        ValueError: there is guidance without labels.
    """
    if labels is None and guidance != 1:
        raise ValueError(
            f"guidance={guidance} needs labels; without a class it must be 1"
        )

    def predict(x: jax.Array, t: jax.Array, labels: Any = None) -> jax.Array:
        return model(x, jnp.full((len(x),), t), labels)

    ask = predict
    if labels is not None:
        ask = guided(predict, labels, model.options["classes"], guidance)

    def denoise(x: jax.Array, t: jax.Array) -> Any:
        alpha, sigma = (jnp.asarray(table)[t] for table in schedule)
        return denoised(target, ask(x, t), x, alpha, sigma)

    if given is None or given.free is None or noise is None:
        return denoise
    known = model.normalize(given.latent)
    return keeping(denoise, schedule, known, noise, jnp.asarray(given.free))


def noise_of(
    seeds: Int[Array, " b"], model: Any, size: Size
) -> tuple[jax.Array, jax.Array]:
    """Return a key an image for the noise of the steps, and the first noise."""
    shape = (len(seeds), *size, model.options["channels"])
    # A seed is an image's number, as in single-image diffusion.
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), seeds)
    return fold_in(keys, 1), normal(fold_in(keys, 0), jnp.zeros(shape))


def _begin(
    model: Any, path: Path, noise: jax.Array, given: Given | None, strength: float
) -> tuple[Path, jax.Array]:
    if given is None:
        return path, noise
    return begun(path, model.normalize(given.latent), noise, strength)


class Drawer:
    """Draws latents batch by batch, each shared by a mesh; compiled once for a size.

    Args:
        model: the U-Net, for its structure; other values of it may be drawn from.
        schedule, target, guidance: as of `make_denoise`.
        mesh: devices that share every batch.
        stepper: of `diffusion.samplers`.
        times: to stop at, the noisiest first, see `samplers.spaced`.
        strength: share of the steps that what is given goes through.
    """

    def __init__(
        self,
        model: nnx.Module,
        schedule: Schedule,
        mesh: Mesh,
        *,
        target: Target,
        stepper: Stepper,
        times: Int[np.ndarray, " n"],
        guidance: float = 1.0,
        strength: float = 1.0,
    ):
        network: Functional[Any] = Functional(model)
        self._mesh, self._strength = mesh, strength
        whole = path_of(schedule, times)
        self.steps = round(strength * whole.steps)
        """Steps that an image takes."""
        path = Path(*(column[whole.steps - self.steps :] for column in whole))

        def first(shared: Any, batch: dict[str, Any], size: Size) -> tuple[Any, ...]:
            values, given = shared
            model = network.bind(values)
            _, noise = noise_of(batch["seeds"], model, size)
            _, x = _begin(model, whole, noise, given, strength)
            return x, *_flat(at_first(x), len(x))

        def go(shared: Any, batch: tuple[Any, ...]) -> tuple[Any, ...]:
            values, given, start, stop = shared
            asked, x, *kept = batch
            model = network.bind(values)
            keys, noise = noise_of(asked["seeds"], model, x.shape[1:3])
            labels = asked.get("labels")
            denoise = make_denoise(
                model, schedule, target, labels, guidance, given, noise
            )
            memory = Memory(kept[0], kept[1][0])
            x, memory = advance(stepper, denoise, path, x, memory, keys, start, stop)
            return x, *_flat(memory, len(x))

        def last(values: Any, x: jax.Array) -> jax.Array:
            return network.bind(values).denormalize(x)

        self._first = jax.jit(
            lambda shared, batch, size: spread(
                mesh, lambda shared, batch: first(shared, batch, size)
            )(shared, batch),
            static_argnums=2,
        )
        self._go = jax.jit(spread(mesh, go))
        self._last = jax.jit(spread(mesh, last))

    def draw(
        self,
        values: Any,
        seeds: Int[np.ndarray, " b"],
        labels: Int[np.ndarray, " b"] | None,
        size: Size,
        *,
        given: Given | None = None,
        advanced: Callable[[int], None] = lambda steps: None,
    ) -> Float[Array, "b h w c"]:
        """Return latents of the seeds, cut over the mesh as the batch is.

        Args:
            values: of the U-Net.
            seeds: as many as the devices can share evenly.
            labels: class of each; None where the model knows none.
            size: height and width.
            given: what to begin with, instead of noise.
            advanced: told after every call how many steps it took. What it raises ends
                the drawing.

        Raises:
            ValueError: some steps are left out, with nothing given to begin with.
        """
        if given is None and self._strength < 1:
            raise ValueError(
                f"strength={self._strength} needs something given to begin with; from "
                "noise it must be 1"
            )
        values = jax.device_put(values, replicated(self._mesh))
        asked = {"seeds": np.asarray(seeds, np.int32)}
        if labels is not None:
            asked["labels"] = np.asarray(labels, np.int32)
        asked = jax.device_put(asked, split_batch(self._mesh))
        state = self._first((values, given), asked, tuple(size))
        each = -(-self.steps // CALLS)
        for start in range(0, self.steps, each or 1):
            stop = min(start + each, self.steps)
            shared = (values, given, np.int32(start), np.int32(stop))
            state = jax.block_until_ready(self._go(shared, (asked, *state)))
            advanced(stop - start)
        return self._last(values, state[0])


def _flat(memory: Memory, batch: int) -> tuple[jax.Array, jax.Array]:
    """Return what a stepper keeps as arrays [B, ...], to be cut over devices."""
    return memory.x0, jnp.broadcast_to(memory.half_log_snr, (batch,))


class Decoder:
    """Makes 8-bit images of latents, each batch shared by a mesh.

    Args:
        autoencoder: whose latents they are; None where pixels are diffused.
        mesh: devices.
    """

    def __init__(self, autoencoder: nnx.Module | None, mesh: Mesh):
        self._mesh, self._values = mesh, {}
        network: Functional[Any] | None = None
        if autoencoder is not None:
            network = Functional(autoencoder)
            self._values = jax.device_put(values_of(autoencoder), replicated(mesh))

        def images(values: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            if network is not None:
                model = network.bind(values)
                if isinstance(model, AutoencoderVQ):
                    # Those that are diffused are not yet rounded to codes.
                    x = jnp.where(jnp.isfinite(x), model.codebook.quantize(x).codes, x)
                x = model.decode(x)
            return to_uint8(x), jnp.isfinite(x).all((1, 2, 3))

        self._images = jax.jit(spread(mesh, images))

    def decode(
        self, latents: Float[np.ndarray, "b h w c"], at_once: int
    ) -> tuple[UInt8[np.ndarray, "b H W _"], Bool[np.ndarray, " b"]]:
        """Return images, and which of them are numbers throughout.

        Args:
            latents: any number.
            at_once: how many every device decodes together, which bounds the memory.
        """
        together = at_once * self._mesh.size
        found = []
        for place in range(0, len(latents), together):
            part = latents[place : place + together]
            missing = together - len(part)
            part = np.concatenate([part, np.zeros((missing, *part.shape[1:]))])
            on_devices = jax.device_put(np.float32(part), split_batch(self._mesh))
            found.append(jax.device_get(self._images(self._values, on_devices)))
        pixels, finite = (
            np.concatenate(x)[: len(latents)] for x in zip(*found, strict=True)
        )
        return pixels, finite
