"""A drawing: images that are made batch by batch, and what there is to say of them.

What `sample.py` does with a drawing is the same for every kind of model.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deepprism_jax.sampling.pictures import Pixels

Advance = Callable[[int], None]
"""Told how many more of `Drawing.work` are done."""


@dataclass(frozen=True)
class Drawing:
    """Images to be drawn.

    Args:
        count: how many.
        first: seed of the first.
        lines: told to the user before the work begins.
        facts: what `samples.json` says of them.
        pictures: images that are written beside them, by name: what went in.
        labels: class of each image, -1 for none; () where there are no classes.
        rows: name of the row of the grid that each image belongs to; () for no rows.
        work: how much there is to do, in any unit.
        images: draws them, in order; to be called once.
    """

    count: int
    first: int
    lines: tuple[str, ...]
    facts: Mapping[str, Any]
    work: int
    images: Callable[[Advance], Iterator[Pixels]]
    pictures: Mapping[str, Pixels] = field(default_factory=dict)
    labels: Sequence[int] = ()
    rows: Sequence[str] = ()
