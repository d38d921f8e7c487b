"""The operators of Table 2 as layers, compiled at one size."""

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from sparse_attention import attend_row_and_column

from deepprism_jax.layers import Attention, PrismAttention, conv_factory, make_conv
from deepprism_jax.ops.attend import attend

_QUERIES_AT_ONCE = 64
"""Positions whose scores chunked attention holds at a time."""


class Subject:
    """One operator at one size, with what is compiled of it."""

    def __init__(self, operator: str, sizes: dict[str, int]):
        self.sizes = {**sizes, "N": sizes["side"] ** 2}
        self._apply = APPLY.get(operator, lambda layer, x: layer(x))
        layer = nnx.eval_shape(lambda: make(operator, sizes))
        self._graph, self._shapes = nnx.split(layer)

    def _forward(self, state: nnx.State, x: jax.Array) -> jax.Array:
        return self._apply(nnx.merge(self._graph, state), x)

    def _backward(self, state: nnx.State, x: jax.Array, g: jax.Array):
        y, pull = jax.vjp(self._forward, state, x)
        return y, pull(g)

    def _input(self, images: int) -> jax.Array:
        side, channels = self.sizes["side"], self.sizes["C"]
        return _draw(jax.ShapeDtypeStruct((images, side, side, channels), jnp.float32))

    @cached_property
    def _state(self) -> nnx.State:
        # Any values do, and these need no program of their own to be compiled.
        return jax.tree.map(lambda shape: 0.1 * _draw(shape), self._shapes)

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return sum(leaf.size for leaf in jax.tree.leaves(self._shapes))

    @cached_property
    def _training(self) -> Any:
        x = self._input(self.sizes["B"])
        return jax.jit(self._backward).lower(self._state, x, x).compile()

    @property
    def space(self) -> int:
        """Bytes that forward and backward hold, but for parameters and gradients."""
        plan = self._training.memory_analysis()
        held = plan.argument_size_in_bytes + plan.output_size_in_bytes
        return held + plan.temp_size_in_bytes - 2 * 4 * self.parameters

    def training(self) -> Callable[[], Any]:
        """Forward and backward of all images."""
        x = self._input(self.sizes["B"])
        run, state = self._training, self._state
        return lambda: jax.block_until_ready(run(state, x, x))

    def inference(self) -> Callable[[], Any]:
        """Forward of one image."""
        x, state = self._input(1), self._state
        run = jax.jit(self._forward).lower(state, x).compile()
        return lambda: jax.block_until_ready(run(state, x))


def _draw(shape: jax.ShapeDtypeStruct) -> jax.Array:
    values = np.random.default_rng(0).standard_normal(shape.shape, np.float32)
    return jnp.asarray(values)


def make(operator: str, sizes: dict[str, int]) -> nnx.Module:
    """The layer of an operator; what it is applied by, if not called, is in `APPLY`."""
    channels, rngs = sizes["C"], nnx.Rngs(0)
    if operator in ("Conv", "Group", "Prism"):
        kinds = {"Conv": "dense", "Group": "group", "Prism": "deepprism"}
        kind: Any = kinds[operator]
        return make_conv(kind, channels, channels, groups=sizes["G"], rngs=rngs)
    if operator == "PrismAttn":
        return PrismAttention(channels, rngs=rngs)
    conv = conv_factory("dense")
    return Attention(channels, heads=sizes["P"], conv=conv, rngs=rngs)


def _attend(layer: Any, x: jax.Array, *, at_once: int | None = None) -> jax.Array:
    """`layers.Attention`, with the scores whole, or of so many queries at once."""
    projections = (layer.query, layer.key, layer.value)
    q, k, v = (
        rearrange(project(x), "b h w (n d) -> b (h w) n d", n=layer.heads)
        for project in projections
    )
    y = attend(q, k, v, most_tokens=at_once or q.shape[1])
    return layer.output(rearrange(y, "b (h w) n d -> b h w (n d)", h=x.shape[1]))


def _sparse(layer: Any, x: jax.Array) -> jax.Array:
    return layer.output(
        attend_row_and_column(layer.query(x), layer.key(x), layer.value(x))
    )


APPLY: dict[str, Callable[[Any, jax.Array], jax.Array]] = {
    "Attention": _attend,
    "FlashAttn": partial(_attend, at_once=_QUERIES_AT_ONCE),
    "MultiHeadAttn": _attend,
    "SparseAttn": _sparse,
    "PrismAttn": _attend,
}
