"""Parameters of a network by its parts and by kinds of layer, from names and shapes."""

import math
from collections.abc import Mapping
from typing import Any

from rich.table import Table

Shapes = Mapping[str, Any]
"""Dotted names to anything with a shape: arrays, or `Functional.shapes`."""

LAYERS = {
    "hidden convolutions": (),
    "attention": ("query", "key", "value", "output"),
    "normalisation": ("norm", "norm1", "norm2", "norm_out"),
    "input and output": ("conv_in", "conv_out"),
    "latent": ("quant_conv", "post_quant_conv"),
    "codebook": ("codes",),
    "codebook usage (not trained)": ("usage",),
    "perceptual weights": ("layer_weights",),
}
"""Kinds of layer, and the parts of a parameter's name that tell them."""

# E and G of the paper: each has the latent layer on its side.
_PARTS = {
    "encoder": "encoder",
    "quant_conv": "encoder",
    "decoder": "decoder",
    "post_quant_conv": "decoder",
    "codebook": "codebook",
}


def parameter_count(shapes: Shapes) -> int:
    """How many numbers all the arrays hold."""
    return sum(math.prod(leaf.shape) for leaf in shapes.values())


def layer_of(name: str) -> str:
    """Kind of layer, a key of `LAYERS`, that a parameter's dotted name belongs to."""
    parts = set(name.split("."))
    return next(
        (layer for layer, marks in LAYERS.items() if parts.intersection(marks)),
        "hidden convolutions",
    )


def count_by_layer(networks: Mapping[str, Shapes]) -> dict[str, dict[str, int]]:
    """Counts `[network][layer]`; an autoencoder is told apart into its own networks.

    >>> functional = Functional(AutoencoderKL(width=256, rngs=nnx.Rngs(0)))
    >>> count_by_layer({"autoencoder": functional.shapes})
    {'encoder': {'hidden convolutions': 504, ...}, 'decoder': {...}}
    """
    counts: dict[str, dict[str, int]] = {}
    for network, shapes in networks.items():
        for name, leaf in shapes.items():
            part = _PARTS.get(name.split(".")[0], network)
            layers = counts.setdefault(part, {})
            layer = layer_of(name)
            layers[layer] = layers.get(layer, 0) + math.prod(leaf.shape)
    order = list(dict.fromkeys([*_PARTS.values(), *counts]))
    return {part: counts[part] for part in order if part in counts}


def parameter_table(networks: Mapping[str, Shapes]) -> Table:
    """A row a kind of layer, a column a network, and their sums."""
    counts = count_by_layer(networks)
    table = Table("parameters", show_footer=True)
    table.columns[0].footer = "total"
    for part, layers in counts.items():
        total = sum(layers.values())
        table.add_column(part, justify="right", footer=f"{total:,}")
    total = sum(map(parameter_count, networks.values()))
    table.add_column("total", justify="right", footer=f"{total:,}")
    for layer in LAYERS:
        row = [layers.get(layer, 0) for layers in counts.values()]
        if any(row):
            cells = [f"{count:,}" if count else "-" for count in row]
            table.add_row(layer, *cells, f"{sum(row):,}")
    return table
