"""Sparse attention of Child et al. (2019), arXiv:1904.10509, for feature maps.

Their strided pattern, with the width of the map as its stride: a position sees its own
row (the positions near it in reading order) and its own column (every W-th position).
An image has no order, so no position is masked for being later. With H = W that is
2 sqrt(N) - 1 of the N = H W positions, in two steps all are reached, and no array has
more than N (H + W) scores.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def attend_row_and_column(
    q: Float[Array, "b h w c"], k: Float[Array, "b h w c"], v: Float[Array, "b h w c"]
) -> Float[Array, "b h w c"]:
    """softmax(q k^T / sqrt(c)) v over the positions of one's own row and column."""
    height, width = q.shape[1:3]
    in_row = jnp.einsum("bijc,bilc->bijl", q, k)
    in_column = jnp.einsum("bijc,bljc->bijl", q, k)
    # A position lies in its row and in its column: it counts once.
    self = jnp.eye(height, dtype=bool)[:, None]
    in_column = jnp.where(self, -jnp.inf, in_column)
    scores = jnp.concatenate((in_row, in_column), axis=-1) / q.shape[-1] ** 0.5
    weights = jax.nn.softmax(scores, axis=-1)
    from_row, from_column = weights[..., :width], weights[..., width:]
    return jnp.einsum("bijl,bilc->bijc", from_row, v) + jnp.einsum(
        "bijl,bljc->bijc", from_column, v
    )
