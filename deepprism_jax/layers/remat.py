"""Which activations are computed again in the backward pass instead of kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

Remat = Literal["none", "blocks"]

_POLICY: ContextVar[Remat] = ContextVar("remat", default="none")


@contextmanager
def rematerializing(policy: Remat) -> Iterator[None]:
    """Trace networks under a policy.

    | policy | kept for the backward pass |
    |---|---|
    | `none` | whatever it reads |
    | `blocks` | the input of every block; what lies inside one is computed again |

    `layers.blocks.run` obeys it. The numbers stay the same, up to rounding where a
    compiler fuses the second pass in another way. `jax.jit` keeps what it has traced:
    give it a function of its own.

    Raises:
        ValueError: the policy is unknown.
    """
    if policy not in get_args(Remat):
        raise ValueError(
            f"remat={policy!r} is unknown; choose one of {list(get_args(Remat))}"
        )
    token = _POLICY.set(policy)
    try:
        yield
    finally:
        _POLICY.reset(token)


def policy() -> Remat:
    """Return the policy that networks are traced under."""
    return _POLICY.get()
