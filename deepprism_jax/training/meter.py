"""Means of the metrics between two log lines, kept on the device until then."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_NEVER = np.int32(np.iinfo(np.int32).max)


class NonFiniteError(Exception):
    """A metric or a parameter is NaN or infinite; the message says which and when."""


class _Sums(NamedTuple):
    count: Any
    total: Any
    first_bad: Any
    """First step at which the value was not finite."""


@jax.jit
def _add(window: dict[str, _Sums], step: Any, metrics: dict[str, Any]) -> Any:
    window = dict(window)
    for name, value in metrics.items():
        value = jnp.asarray(value, jnp.float32)
        sums = window.get(name, _Sums(jnp.int32(0), jnp.float32(0.0), _NEVER))
        first_bad = jnp.where(jnp.isfinite(value), _NEVER, step)
        window[name] = _Sums(
            sums.count + 1, sums.total + value, jnp.minimum(sums.first_bad, first_bad)
        )
    return window


class Meter:
    """Adds up the metrics of steps; `flush` is the one transfer from the device.

    >>> meter = Meter()
    >>> meter.update(1, {"loss": loss})     # does not wait for the step
    >>> meter.flush()
    {"loss": 0.25}
    """

    def __init__(self):
        self._window: dict[str, _Sums] = {}
        self._steps: list[int] = []

    @property
    def steps(self) -> int:
        """Number of steps since the last flush."""
        return len(self._steps)

    def update(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Add the metrics that step number `step` gave: name to device scalar."""
        self._window = _add(self._window, np.int32(step), dict(metrics))
        self._steps.append(step)

    def check(self) -> None:
        """Wait for the steps since the last flush and check their metrics.

        Raises:
            NonFiniteError: a metric was NaN or infinite at one of the steps.
        """
        self._fetch()

    def flush(self) -> dict[str, float]:
        """Return the means since the last flush, by name, and start anew.

        Raises:
            NonFiniteError: a metric was NaN or infinite at one of the steps.
        """
        window = self._fetch()
        self._steps, self._window = [], {}
        return {name: float(s.total / s.count) for name, s in window.items()}

    def _fetch(self) -> dict[str, _Sums]:
        window: dict[str, _Sums] = jax.device_get(self._window)
        bad = {name: s.first_bad for name, s in window.items() if s.first_bad < _NEVER}
        if bad:
            first = min(bad.values())
            names = ", ".join(sorted(n for n, step in bad.items() if step == first))
            raise NonFiniteError(
                f"{names} is not finite, first at step {first} "
                f"(checked were the steps [{self._steps[0]}, {self._steps[-1]}])"
            )
        return window


@jax.jit
def _finite(leaves: list[jax.Array]) -> Any:
    return [jnp.all(jnp.isfinite(x)) for x in leaves]


def check_finite(tree: Any, step: int) -> None:
    """Check the arrays of a training state after a step.

    Raises:
        NonFiniteError: an array holds a NaN or an infinity; the message names it.
    """
    leaves = [
        (jax.tree_util.keystr(path, simple=True, separator="."), x)
        for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]
        if jnp.issubdtype(x.dtype, jnp.inexact)
    ]
    flags = jax.device_get(_finite([x for _, x in leaves]))
    bad = [name for (name, _), finite in zip(leaves, flags, strict=True) if not finite]
    if bad:
        rest = f" and {len(bad) - 1} more arrays are" if len(bad) > 1 else " is"
        raise NonFiniteError(f"{bad[0]}{rest} not finite after step {step}")
