"""What each layer of a network computes and moves, from its shapes alone.

A layer is a convolution, a normalisation or the product of attention. Counted are its
multiplications and additions (a multiply-add is two), as its definition needs them and
not as a formulation carries them out, and the bytes of what it reads and writes once:
its input, its parameters and its output. Both are of the forward pass.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
from flax import nnx
from rich.table import Table

from deepprism_jax.layers import GroupNorm, PrismConv, attention
from deepprism_jax.layers.dense import Conv
from deepprism_jax.layers.functional import Functional

# A number is shifted, squared and added to two sums; then shifted, multiplied by its
# group's gain and its channel's scale, and the bias is added.
_NORM_OPERATIONS = 8


class LayerCost(NamedTuple):
    """One layer in one forward pass."""

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    operations: int
    bytes: int


def layer_costs(
    model: nnx.Module, *shapes: tuple[int, ...], method: str = "__call__"
) -> list[LayerCost]:
    """Return the cost of every layer that the model calls, in order.

    Args:
        model: a module, or its abstract form of `nnx.eval_shape`.
        shapes: shapes of the float32 arrays that it is called with.
        method: name of what is called.
    """
    network, found = Functional(model), []

    def run(values, *inputs):
        module: Any = network.bind(values)
        names = {
            id(node): ".".join(map(str, path))
            for path, node in nnx.iter_graph(module)
            if isinstance(node, nnx.Module)
        }
        with _recorded(names, found.append):
            return getattr(module, method)(*inputs)

    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    jax.eval_shape(run, network.shapes, *inputs)
    return found


def cost_table(title: str, costs: list[LayerCost]) -> Table:
    """One line a layer, and their sum."""
    table = Table(title=title)
    for heading in ("layer", "kind"):
        table.add_column(heading, no_wrap=True)
    headings = ("output", "parameters", "operations", "share", "bytes")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    total = sum(cost.operations for cost in costs)
    for cost in costs:
        table.add_row(
            cost.name,
            cost.kind,
            "x".join(map(str, cost.output)),
            f"{cost.parameters:,}",
            _short(cost.operations),
            f"{cost.operations / total:.1%}",
            _short(cost.bytes),
        )
    table.add_section()
    parameters = sum(cost.parameters for cost in costs)
    moved = _short(sum(cost.bytes for cost in costs))
    table.add_row("all", "", "", f"{parameters:,}", _short(total), "", moved)
    return table


@contextmanager
def _recorded(names: dict[int, str], found: Callable[[LayerCost], None]):
    """Call `found` for every layer that is run meanwhile."""

    def watch(kind: Callable[[Any], str], operations: Callable[..., int]):
        def wrap(call):
            def watched(layer, x, **options):
                y = call(layer, x, **options)
                numbers = sum(leaf.size for leaf in _leaves(layer))
                cost = LayerCost(
                    name=names.get(id(layer), type(layer).__name__),
                    kind=kind(layer),
                    output=y.shape,
                    parameters=numbers,
                    operations=operations(layer, x, y),
                    bytes=_size(x) + _size(y) + sum(map(_size, _leaves(layer))),
                )
                found(cost)
                return y

            return watched

        return wrap

    def attend(q, k, v, **options):
        y = plain_attend(q, k, v, **options)
        batch, tokens, heads, size = q.shape
        moved = sum(map(_size, (q, k, v, y)))
        operations = 4 * batch * heads * tokens**2 * size
        found(LayerCost("", "attention", y.shape, 0, operations, moved))
        return y

    plain_attend = attention.attend
    with ExitStack() as patches:
        for cls, method, kind, operations in (
            (Conv, "__call__", _window, _conv_operations),
            (nnx.Conv, "__call__", _window, _conv_operations),
            (PrismConv, "__call__", _window, _conv_operations),
            (GroupNorm, "_apply", lambda _: "norm", _norm_operations),
        ):
            call = watch(kind, operations)(getattr(cls, method))
            patches.enter_context(mock.patch.object(cls, method, call))
        patches.enter_context(mock.patch.object(attention, "attend", attend))
        yield


def _window(layer: Any) -> str:
    *window, _, _ = layer.kernel.shape
    kind = "prism" if len(window) == 3 else "dense"
    return f"{kind} {'x'.join(map(str, window))}"


def _conv_operations(layer: Any, x: jax.Array, y: jax.Array) -> int:
    # All axes of a kernel but the last are what one number of the output is a sum over.
    del x
    return 2 * y.size * math.prod(layer.kernel.shape[:-1])


def _norm_operations(layer: Any, x: jax.Array, y: jax.Array) -> int:
    del layer, y
    return _NORM_OPERATIONS * x.size


def _leaves(layer: nnx.Module) -> Iterator[Any]:
    return iter(jax.tree.leaves(nnx.state(layer)))


def _size(array: Any) -> int:
    return array.size * array.dtype.itemsize


def _short(number: int) -> str:
    for unit in ("", "k", "M", "G"):
        if number < 1000 or unit == "G":
            break
        number /= 1000  # pyright: ignore
    return f"{number:.3g}{unit}"
