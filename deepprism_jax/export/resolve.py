"""A function without choices by platform, for converters that know no such thing."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

_CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")


def for_platform(function: Callable[..., Any], platform: str) -> Callable[..., Any]:
    """Return the function as it is lowered for a platform, of plain operators alone.

    What `lax.platform_dependent` offers is decided, and calls (`jax.jit`, functions
    with derivatives of their own) are replaced by what they call. A platform that no
    operator knows by name gets the default of each.

    Args:
        function: of arrays, gives one array or a tree of them.
        platform: "cpu", "cuda", "tpu", or any other name.
    """

    def resolved(*operands: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*operands)
        leaves = _evaluate(closed.jaxpr, closed.consts, operands, platform)
        return jax.tree.unflatten(jax.tree.structure(shape), leaves)

    return resolved


def _evaluate(
    jaxpr: core.Jaxpr, consts: Sequence[Any], operands: Sequence[Any], platform: str
) -> list[Any]:
    values = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= zip(jaxpr.invars, operands, strict=True)

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        given = [read(atom) for atom in eqn.invars]
        name = eqn.primitive.name
        if name == "platform_index":
            found = [_chosen(eqn.params["platforms"], platform)]
        elif name == "cond" and isinstance(given[0], int):
            branch = eqn.params["branches"][given[0]]
            found = _evaluate(branch.jaxpr, branch.consts, given[1:], platform)
        elif name in _CALLS:
            called = eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]
            found = _evaluate(called.jaxpr, called.consts, given, platform)
        else:
            found = eqn.primitive.bind(*given, **eqn.params)
            found = found if eqn.primitive.multiple_results else [found]
        values |= zip(eqn.outvars, found, strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _chosen(offered: Sequence[Sequence[str] | None], platform: str) -> int:
    """Return which of the choices is that of the platform; None is for all others."""
    return next(
        index
        for index, names in enumerate(offered)
        if names is None or platform in names
    )
