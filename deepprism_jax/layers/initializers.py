r"""Initialisation of a kernel with few weights.

A dense kernel keeps the variance of its input because it averages over many independent
weights. A channel convolution has 27 and applies them everywhere: in the Fourier domain
it multiplies the signal by one response H(w). A stack of L layers multiplies the energy
at frequency w by prod_l |H_l(w)|^2. With independent centred weights of total variance 1
each factor has mean 1 but a standard deviation of 1 too, so the product of 40 is
log-normal with a typical value of exp(-40 * 0.58), carried by a few lucky frequencies:
the signal dies or becomes a pure wave.

Write the kernel as a unit impulse plus noise, sqrt(1 - delta) * impulse + n with total
noise variance delta. Then E|H|^2 = (1 - delta) + delta = 1 still, and
Var|H|^2 ~ 2 delta (1 - delta) + delta^2, so that the log-energy of L layers has a variance
of about 2 L delta a frequency; averaging over the frequencies leaves less. delta = 0.01
keeps the energy of 40 layers within a factor of 2, and breaks the symmetry between layers.

With F fields the impulse becomes an orthogonal F x F mixing. Every output then averages
over F times as many weights, so the noise may grow with F: delta = min(1, 0.01 F).
"""

import jax
import jax.numpy as jnp

NOISE_OF_ONE_FIELD = 0.01


def prism_kernel(
    key: jax.Array, shape: tuple[int, int, int, int, int], dtype=jnp.float32
) -> jax.Array:
    """Draw a kernel [K_H, K_W, K_C, F_in, F_out] that preserves variance in depth.

    It is sqrt(1 - delta) times an impulse that mixes the fields orthogonally, plus
    Gaussian noise of total variance delta for every output.
    """
    rows, columns, taps, fields_in, fields_out = shape
    delta = min(1.0, NOISE_OF_ONE_FIELD * fields_in)
    mixing_key, noise_key = jax.random.split(key)
    centre = _mixing(mixing_key, fields_in, fields_out)
    fan_in = rows * columns * taps * fields_in
    kernel = jax.random.normal(noise_key, shape) * jnp.sqrt(delta / fan_in)
    kernel = kernel.at[rows // 2, columns // 2, taps // 2].add(
        jnp.sqrt(1.0 - delta) * centre
    )
    return kernel.astype(dtype)


def _mixing(key: jax.Array, fields_in: int, fields_out: int) -> jax.Array:
    """A matrix [F_in, F_out] that keeps the variance of white input in every output."""
    if fields_in == fields_out == 1:
        return jnp.ones((1, 1))
    size = max(fields_in, fields_out)
    square = jax.random.orthogonal(key, size)[:fields_in, :fields_out]
    return square / jnp.linalg.norm(square, axis=0, keepdims=True)


def dense_kernel(
    key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32
) -> jax.Array:
    """Draw a kernel [..., C_in, C_out] of variance 1 / fan_in (LeCun et al., 1998)."""
    return jax.nn.initializers.lecun_normal()(key, shape, dtype)


def depthwise_kernel(
    key: jax.Array, shape: tuple[int, int, int, int], dtype=jnp.float32
) -> jax.Array:
    """Draw a depthwise kernel [K_H, K_W, 1, C]: an impulse plus noise a channel."""
    rows, columns, _, channels = shape
    kernels = jax.vmap(lambda k: prism_kernel(k, (rows, columns, 1, 1, 1)))(
        jax.random.split(key, channels)
    )
    return jnp.moveaxis(kernels.reshape(channels, rows, columns, 1), 0, -1).astype(
        dtype
    )
