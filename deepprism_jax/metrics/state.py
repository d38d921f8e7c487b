"""What every metric is: a state with `from_batch`, `merge` and `compute`.

A state is a pytree that knows all it needs of the images it has seen. States of parts
merge to the state of the whole, so the parts may be batches, devices or processes.
"""

import math
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

Pixels = UInt8[Array | np.ndarray, "*b h w c"]
"""8-bit images, channel last, on the host or on a device."""

Mask = Bool[Array | np.ndarray, "*b"]
"""False where an image only fills up the batch."""


# Type variables, for the run-time check of types in tests cannot take `typing.Self`.
M = TypeVar("M", bound="Metric")
T = TypeVar("T", bound="Moments")


class Score(NamedTuple):
    """One figure of a table: `value`, its spread, and what both were taken over."""

    value: float
    std: float | None
    count: int
    over: str
    images: int | None = None
    """Images behind it, where `over` is not images but splits or subsets of them."""


@runtime_checkable
class Metric(Protocol):
    """A state that a class method `from_batch` makes of one batch."""

    def merge(self: M, other: M) -> M:
        """Return the state of both parts together."""
        ...

    def compute(self) -> Score:
        """Return the figure, on the host."""
        ...


class Moments(NamedTuple):
    """Mean and spread of one number an image, without keeping the numbers.

    Count, mean and sum of squared deviations are merged by the formula of Chan, Golub
    and LeVeque (1979). A sum of squares in float32 would lose the spread of numbers
    that are large beside it.
    """

    count: jax.Array
    mean: jax.Array
    deviation: jax.Array

    @classmethod
    def from_values(
        cls: type[T], values: Float[Array, "*b"], mask: Mask | None = None
    ) -> T:
        """Take in one number an image; those where `mask` is False do not count."""
        values = values.astype(jnp.float32)
        valid = jnp.ones(values.shape, bool) if mask is None else jnp.asarray(mask)
        # `where`, not a product: the number of a padding image may be NaN.
        count = jnp.sum(valid, dtype=jnp.int32)
        mean = jnp.sum(jnp.where(valid, values, 0.0)) / jnp.maximum(count, 1)
        squares = jnp.where(valid, jnp.square(values - mean), 0.0)
        return cls(count, mean, jnp.sum(squares))

    @jax.jit
    def merge(self: T, other: T) -> T:
        """Return the moments of both parts together; an empty part changes nothing."""
        count = self.count + other.count
        share = other.count / jnp.maximum(count, 1)
        step = other.mean - self.mean
        return type(self)(
            count,
            self.mean + step * share,
            self.deviation + other.deviation + step**2 * self.count * share,
        )

    def compute(self) -> Score:
        """Return mean and population standard deviation over images.

        Raises:
            ValueError: no image was taken in.
        """
        count, mean, deviation = jax.device_get((self.count, self.mean, self.deviation))
        if count == 0:
            raise ValueError(
                "no image was measured: the split is empty or every mask is False"
            )
        std = math.sqrt(float(deviation) / int(count))
        return Score(float(mean), std, int(count), "images")


def check_pair(images: Any, reconstructions: Any) -> None:
    """Refuse a pair that is not two 8-bit image batches of one shape.

    Floats are refused because their range cannot be told: [-1, 1], [0, 1] and
    [0, 255] would all give a number.

    Raises:
        TypeError: an array is not uint8.
        ValueError: the shapes differ.
    """
    for name, array in (("images", images), ("reconstructions", reconstructions)):
        if array.dtype != np.uint8:
            raise TypeError(
                f"{name} are {array.dtype}, not uint8: convert images in [-1, 1] with "
                "deepprism_jax.ops.pixels.to_uint8"
            )
    if images.shape != reconstructions.shape:
        raise ValueError(
            f"images {images.shape} and reconstructions {reconstructions.shape} "
            "differ in shape: compare every image with its own reconstruction"
        )
