r"""Initial kernels that keep the energy of a signal through a deep stack.

A dense kernel averages over many independent weights, and a variance of 1 / fan_in is
enough. A channel convolution has K = 27 weights and applies them everywhere: it
multiplies each frequency w of the signal by one number H(w), the Fourier transform of
the kernel, and L layers multiply the energy there by prod_l |H_l(w)|^2. With
independent centred weights of total variance 1 the mean of |H|^2 is 1, but that of
log |H|^2 is -0.577: after 40 layers the typical energy is exp(-23), and what is left is
carried by a few lucky frequencies. The signal dies or becomes a pure wave.

So a kernel starts as a unit impulse plus noise, scaled to norm 1:

    k = (sqrt(1 - delta) impulse + n) / norm,    n ~ N(0, delta / K) a weight

The mean of |H|^2 over the frequencies is the sum of the squared weights (Parseval), so
one layer keeps the energy of white noise exactly. A stack adds up the log-responses: to
first order sum_l log |H_l(w)|^2 = 2 sum_i c_i cos(w x_i) over the (K - 1) / 2 pairs of
opposite taps, c_i ~ N(0, 2 L delta / K); the norm has fixed the centre. The mean of its
exponential over w is prod_i I_0(2 c_i) ~ exp(sum_i c_i^2), and the norm has taken the
expectation of that away. What remains is the spread

    std(log energy) ~ 2 L delta / sqrt(K)

and delta = 0.0015 sqrt(K) leaves 0.12 of it at L = 40, for any K: delta is 0.008 for 27
weights and 0.003 for 3.

With F fields H(w) is an F x F matrix, and the impulse an orthogonal mixing of the
fields. The energy is then a mean over F directions too, and its spread
2 L delta / (F sqrt(K)): delta = 0.0015 F sqrt(K), until it reaches 1, a dense kernel.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp

from deepprism_jax.ops import ChannelPadding

_NOISE = 0.0015


@partial(jax.jit, static_argnames=("shape", "channel_padding", "depth"))
def prism_kernel(
    key: jax.Array,
    shape: tuple[int, int, int, int, int],
    *,
    channel_padding: ChannelPadding = "circular",
    depth: int | None = None,
) -> jax.Array:
    """Draw a kernel [K_H, K_W, K_C, F_in, F_out] that keeps the energy in depth.

    Where the `depth` of the channel axis is known, the taps that a `zero` border cuts
    off there are made up for.
    """
    mixing_key, noise_key = jax.random.split(key)
    taps, fields_in, fields_out = shape[2:]
    inside = jnp.ones(taps)
    if channel_padding == "zero" and depth is not None:
        # Share of the positions from which a tap falls on the axis.
        inside = jnp.maximum(1.0 - jnp.abs(jnp.arange(taps) - taps // 2) / depth, 0.0)
    centre = _mixing(mixing_key, fields_in, fields_out)
    return _impulse_and_noise(noise_key, shape, centre, fields_in, inside)


def dense_kernel(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw a kernel [..., C_in, C_out] of variance 1 / fan_in (LeCun et al., 1998)."""
    return jax.random.normal(key, shape) * math.prod(shape[:-1]) ** -0.5


def group_kernel(
    key: jax.Array, shape: tuple[int, int, int, int], groups: int
) -> jax.Array:
    """Draw a kernel [K_H, K_W, C_in / groups, C_out] of a convolution in groups.

    Each group is a stack of its own, of as many fields as it has channels: one where it
    is depthwise.
    """
    rows, columns, fields_in, channels = shape
    fields_out = channels // groups
    kernels = jax.vmap(
        lambda key: prism_kernel(key, (rows, columns, 1, fields_in, fields_out))
    )(jax.random.split(key, groups))
    return jnp.moveaxis(kernels[:, :, :, 0], 0, -2).reshape(shape)


def reducing_kernel(key: jax.Array, shape: tuple[int, int, int, int]) -> jax.Array:
    """Draw the kernel [K_H, K_W, C, rank] of a low-rank convolution's first half.

    The signal that a stack of them carries has `rank` directions, not C. So that each
    layer finds them where the last one left them, the second half copies number j of
    the rank to the channels c = j modulo rank, and the first reads it from one of them.
    """
    *_, channels, rank = shape
    choice_key, noise_key = jax.random.split(key)
    copies = (channels - 1 - jnp.arange(rank)) // rank + 1
    chosen = jax.random.randint(choice_key, (rank,), 0, copies)
    channel = jnp.arange(rank) + rank * chosen
    centre = jax.nn.one_hot(channel, channels, axis=0)
    return _impulse_and_noise(noise_key, shape, centre, rank)


def expanding_kernel(key: jax.Array, shape: tuple[int, int, int, int]) -> jax.Array:
    """Draw the kernel [1, 1, rank, C] of a low-rank convolution's second half."""
    *_, rank, channels = shape
    centre = jax.nn.one_hot(jnp.arange(channels) % rank, rank, axis=0)
    return _impulse_and_noise(key, shape, centre, rank)


def _impulse_and_noise(
    key: jax.Array,
    shape: tuple[int, ...],
    centre: jax.Array,
    fields: int,
    inside: jax.Array | float = 1.0,
) -> jax.Array:
    """Kernel [*window, F_in, F_out] from its mixing at the centre [F_in, F_out].

    `fields` are the directions over which the energy is a mean; `inside` the share of
    the positions from which each tap, along the last axis of the window, reads.
    """
    *window, fields_in, _ = shape
    weights = math.prod(window)
    delta = min(1.0, _NOISE * fields * weights**0.5)
    noise = jax.random.normal(key, shape) * jnp.sqrt(delta / (weights * fields_in))
    kernel = noise.at[tuple(size // 2 for size in window)].add(
        jnp.sqrt(1.0 - delta) * centre
    )
    read = jnp.broadcast_to(inside, window[-1:])[:, None, None]
    axes = tuple(range(len(shape) - 1))
    return kernel * jax.lax.rsqrt(jnp.sum(read * kernel**2, axes))


def _mixing(key: jax.Array, fields_in: int, fields_out: int) -> jax.Array:
    """A matrix [F_in, F_out], orthogonal where it is square, of columns of norm 1."""
    if fields_in == fields_out == 1:
        return jnp.ones((1, 1))
    size = max(fields_in, fields_out)
    square = jax.random.orthogonal(key, size)[:fields_in, :fields_out]
    return square / jnp.linalg.norm(square, axis=0, keepdims=True)
