"""The platform that a program is meant for, where it is not the one it is traced on."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

ANY = "any"
"""Any machine with XLA, now or later: none of the kernels that this package brings."""
ONNX = "onnx"
"""A runtime of networks in ONNX: plain operators of few dimensions, nothing of XLA."""

_TARGET: ContextVar[str | None] = ContextVar("target", default=None)


@contextmanager
def compiling_for(platform: str) -> Iterator[None]:
    """Trace for `platform` ("cpu", "gpu", "tpu"), as before compiling ahead of time.

    `ANY` is for a program that leaves this machine: it calls no kernel of the package,
    and still takes the formulation of the platform that it is run on. One for `ONNX`
    has a single formulation.

    Most operators choose their form when a program is lowered, and need no such word.
    Those whose kernels take in what is around them (`ops/half_block.py`,
    `ops/biased.py`) choose when it is traced. `jax.jit` keeps what it has traced: give
    it a function of its own.
    """
    token = _TARGET.set(platform)
    try:
        yield
    finally:
        _TARGET.reset(token)


def platform() -> str:
    """Return the platform that programs are traced for: JAX's default, or as said."""
    return _TARGET.get() or jax.default_backend()


def is_here() -> bool:
    """Return whether programs that are traced run where kernels were built for."""
    return platform() not in (ANY, ONNX)
