"""Custom derivatives inside `jax.shard_map`."""

import jax
import jax.numpy as jnp


def vary_alike(*operands: jax.Array) -> tuple[jax.Array, ...]:
    """Let all operands vary over the same mesh axes; outside shard_map they do already.

    A device's own activations meet parameters that all devices share. For its own
    operators JAX adds up the gradient of the parameters over the devices; with a custom
    derivative it asks that the operands be of one kind. Adding a zero of each other
    operand makes them so, and its transpose is that sum.
    """
    zeros = [jnp.zeros_like(a, shape=(), dtype=jnp.float32) for a in operands]
    if all(jax.typeof(zero) == jax.typeof(zeros[0]) for zero in zeros):
        return operands
    total = sum(zeros[1:], start=zeros[0])
    return tuple(operand + total.astype(operand.dtype) for operand in operands)
