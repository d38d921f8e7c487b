"""SOAP: Adam along the eigenvectors of Shampoo's preconditioner (arXiv 2409.11321).

Neighbouring weights of a kernel see neighbouring pixels and channels, which are nearly
alike, so their gradients go together, and a rate for each weight cannot tell. SOAP
turns a tensor to axes along which its gradients do not go together, and Adam has a rate
for each of those. For the 27 weights of a channel convolution the axes cost little;
those of a dense kernel would be matrices of thousands of rows.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

LARGEST = 256
"""Longest side of a tensor, as a matrix, that is turned."""

EVERY = 10
"""Steps between two corrections of the axes."""

_EPSILON = 1e-8

Stacks = dict[str, jax.Array]
"""What belongs to all tensors of one shape, [tensors, ...], by that shape."""


class SoapState(NamedTuple):
    """What is remembered between two steps."""

    count: jax.Array
    """Steps taken, int32."""
    mean: Stacks
    """First moment [tensors, rows, columns]."""
    square: Stacks
    """Second moment [tensors, rows, columns] along the axes."""
    products: dict[str, Stacks]
    """Averages of G G^T ("rows") and G^T G ("columns") [tensors, side, side]."""
    axes: dict[str, Stacks]
    """Orthonormal columns [tensors, side, side], of the sides that are turned."""


def as_matrix(shape: Sequence[int]) -> tuple[int, int]:
    """Return rows and columns of a tensor: what an output is made of, by outputs.

    A vector is one row.

    >>> as_matrix((3, 3, 3, 2, 4)), as_matrix((64,))
    ((54, 4), (1, 64))
    """
    return math.prod(shape[:-1]), math.prod(shape[-1:])


def scale_by_soap(
    b1: float, b2: float, *, every: int = EVERY, largest: int = LARGEST
) -> optax.GradientTransformation:
    """Scale gradients as Adam does, along axes of each tensor's own.

    The axes begin as those of the weights, so that the first moves are Adam's; once in
    `every` steps they follow the products by a step of the power method. Vectors, and
    sides longer than `largest`, are not turned.

    Otherwise than in the paper, the axes do not begin as eigenvectors, of products that
    have seen one gradient, and the second moment is turned with them, not left as it
    is: an axis that is new would have that of rounding errors.

    Args:
        b1: decay of the first moment.
        b2: decay of the second moment and of the products.
        every: steps between two corrections of the axes.
        largest: longest side that is turned.

    Raises:
        ValueError: `every` is below 1.
    """
    if every < 1:
        raise ValueError(f"every={every} must be 1 or more")

    def init(params: Any) -> SoapState:
        zeros = jax.tree.map(jnp.zeros_like, _stacked(params))
        products: dict[str, Stacks] = {"rows": {}, "columns": {}}
        for name, stack in zeros.items():
            count, *sizes = stack.shape
            if sizes[0] == 1:
                continue
            for side, size in zip(products, sizes, strict=True):
                if 1 < size <= largest:
                    products[side][name] = jnp.zeros((count, size, size), stack.dtype)
        axes = jax.tree.map(_identities, products)
        square = jax.tree.map(jnp.copy, zeros)
        return SoapState(jnp.zeros((), jnp.int32), zeros, square, products, axes)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        del params
        # In the precision that accelerators take by themselves axes would not be
        # orthonormal.
        with jax.default_matmul_precision("float32"):
            return _update(updates, state)

    def _update(updates: Any, state: SoapState) -> tuple[Any, SoapState]:
        gradients = _stacked(updates)
        count = state.count + 1
        products = {
            side: {
                name: _average(old, _product(side, gradients[name]), b2)
                for name, old in stacks.items()
            }
            for side, stacks in state.products.items()
        }

        def follow() -> Any:
            return _follow(products, state.axes, state.square)

        def keep() -> Any:
            return state.axes, state.square

        axes, square = lax.cond(count % every == 0, follow, keep)
        mean = jax.tree.map(lambda m, g: _average(m, g, b1), state.mean, gradients)
        square = jax.tree.map(
            lambda s, g: _average(s, g**2, b2), square, _turned(gradients, axes)
        )

        def move(mean: jax.Array, square: jax.Array) -> jax.Array:
            root = jnp.sqrt(square / (1 - b2**count))
            return mean / (1 - b1**count) / (root + _EPSILON)

        moves = jax.tree.map(move, _turned(mean, axes), square)
        moves = _turned_back(moves, axes)
        return _unstacked(moves, updates), SoapState(
            count, mean, square, products, axes
        )

    return optax.GradientTransformation(init, update)


def _stacked(tree: Any) -> Stacks:
    """Bring tensors of one shape together, as matrices: few operations for many."""
    alike: dict[str, list[jax.Array]] = {}
    for leaf in jax.tree.leaves(tree):
        alike.setdefault(_name(leaf.shape), []).append(
            leaf.reshape(as_matrix(leaf.shape))
        )
    return {name: jnp.stack(matrices) for name, matrices in alike.items()}


def _name(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _unstacked(stacks: Stacks, like: Any) -> Any:
    """Undo `_stacked`, given a tree of its shapes."""
    left = {name: iter(stack) for name, stack in stacks.items()}
    return jax.tree.map(
        lambda leaf: next(left[_name(leaf.shape)]).reshape(leaf.shape), like
    )


def _identities(like: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.eye(like.shape[-1], dtype=like.dtype), like.shape)


def _average(old: jax.Array, new: jax.Array, decay: float) -> jax.Array:
    return decay * old + (1 - decay) * new


def _product(side: str, matrices: jax.Array) -> jax.Array:
    """Inner products of all pairs of rows, or of columns."""
    if side == "columns":
        matrices = matrices.mT
    return matrices @ matrices.mT


def _turned(stacks: Stacks, axes: dict[str, Stacks]) -> Stacks:
    """Express matrices along the axes: Q_rows^T G Q_columns."""
    turned = dict(stacks)
    for name, q in axes["rows"].items():
        turned[name] = q.mT @ turned[name]
    for name, q in axes["columns"].items():
        turned[name] = turned[name] @ q
    return turned


def _turned_back(stacks: Stacks, axes: dict[str, Stacks]) -> Stacks:
    """Undo `_turned`."""
    turned = dict(stacks)
    for name, q in axes["rows"].items():
        turned[name] = q @ turned[name]
    for name, q in axes["columns"].items():
        turned[name] = turned[name] @ q.mT
    return turned


def orthonormal(matrices: jax.Array) -> jax.Array:
    """Return Q of the QR decomposition of each matrix, float32 [n, side, side].

    By Householder's reflections, all matrices at once. XLA's own, many small matrices
    on a CPU of few threads, can wait for itself for ever (jaxlib 0.10.2: a batch is
    shared out to the pool of threads that it runs in).
    """
    side = matrices.shape[-1]
    rows = jnp.arange(side)

    def reflect(column: jax.Array, carry: Any) -> Any:
        r, q = carry
        x = jnp.where(rows >= column, jnp.take(r, column, axis=2), 0)
        # Squares of what is small vanish, and of what is large are infinite.
        largest = jnp.max(jnp.abs(x), axis=1, keepdims=True)
        x = x / jnp.where(largest > 0, largest, 1)
        pivot = jnp.take(x, column, axis=1)
        length = jnp.linalg.norm(x, axis=1)
        ahead = jnp.where(pivot < 0, -length, length)
        normal = x + ahead[:, None] * (rows == column)
        size = jnp.sum(normal**2, axis=1)
        scale = jnp.where(size > 0, 2 / jnp.where(size > 0, size, 1), 0)
        normal, scaled = normal[:, :, None], scale[:, None, None] * normal[:, None, :]
        r = r - normal @ (scaled @ r)
        q = q - (q @ normal) @ scaled
        return r, q

    start = matrices, _identities(matrices)
    return lax.fori_loop(0, side, reflect, start)[1]


def _follow(
    products: dict[str, Stacks], axes: dict[str, Stacks], square: Stacks
) -> tuple[dict[str, Stacks], Stacks]:
    """Turn the axes towards the eigenvectors of the products, the largest first.

    The second moment is shared out to the axes that take the place of its own, by the
    squares of the cosines between them.
    """
    found: dict[str, Stacks] = {"rows": {}, "columns": {}}
    square = dict(square)
    for side, stacks in axes.items():
        for name, q in stacks.items():
            grown = products[side][name] @ q
            order = jnp.argsort(-jnp.sum(q * grown, axis=1), axis=1)
            grown = jnp.take_along_axis(grown, order[:, None, :], axis=2)
            found[side][name] = orthonormal(grown)
            share = (found[side][name].mT @ q) ** 2
            if side == "rows":
                square[name] = share @ square[name]
            else:
                square[name] = square[name] @ share.mT
    return found, square
