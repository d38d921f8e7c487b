"""The exact number of parameters, by network and kind of layer."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from rich.table import Table

Shapes = Mapping[str, Any]
"""Dotted names to anything with a shape: arrays, or `Functional.shapes`."""

# The latent layers belong to the network that they are called with.
_NETWORK = {
    "encoder": "encoder",
    "quant_conv": "encoder",
    "codebook": "codebook",
    "decoder": "decoder",
    "post_quant_conv": "decoder",
}

_KINDS = {
    "scale": "normalisation",
    "codes": "codes",
    "usage": "usage of the codes, not trained",
    "layer_weights": "layer weights w_l",
}


_OF_TIME = {"embedding", "condition", "condition1", "condition2"}


def is_of_time(name: str) -> bool:
    """Say whether a parameter of a denoiser reads its time, scale or class.

    What such layers weigh has nothing to do with the image; they are counted apart.
    """
    return not _OF_TIME.isdisjoint(name.split("."))


def count_without_time(shapes: Shapes) -> tuple[int, int]:
    """Return how many parameters a denoiser has, and how many of them not of the time.

    Args:
        shapes: of its parameters.
    """
    kept = {name: leaf for name, leaf in shapes.items() if not is_of_time(name)}
    return parameter_count(shapes), parameter_count(kept)


class LayerCount(NamedTuple):
    """The layers of one kind in one network."""

    network: str
    kind: str
    layers: int
    parameters: int


def parameter_count(shapes: Shapes) -> int:
    """How many numbers all the arrays hold."""
    return sum(math.prod(leaf.shape) for leaf in shapes.values())


def count_layers(networks: Mapping[str, Shapes]) -> list[LayerCount]:
    """Counts by network and kind of layer, the largest first in each network.

    An autoencoder is told apart into encoder, codebook and decoder. A layer is what
    shares a dotted name up to its last part: its kind is read from its kernel's shape.

    >>> functional = Functional(AutoencoderKL(width=256, rngs=nnx.Rngs(0)))
    >>> count_layers({"autoencoder": functional.shapes})[0]
    LayerCount(network='encoder', kind='convolution 3x3', layers=2, parameters=20998)
    """
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    for network, shapes in networks.items():
        owners = {_owner(name): _kind(name, shapes) for name in shapes if _tells(name)}
        seen = set()
        for name, leaf in shapes.items():
            owner = _owner(name)
            kind = _kind(name, shapes) if _tells(name) else owners.get(owner, "other")
            kind = "of time and class" if is_of_time(name) else kind
            key = (_NETWORK.get(name.split(".")[0], network), kind)
            layers, numbers = counts.get(key, (0, 0))
            layers += (owner, kind) not in seen
            seen.add((owner, kind))
            counts[key] = layers, numbers + math.prod(leaf.shape)
    order = list(dict.fromkeys([*_NETWORK.values(), *networks]))
    return sorted(
        (LayerCount(*key, *value) for key, value in counts.items()),
        key=lambda count: (order.index(count.network), -count.parameters),
    )


def parameter_table(networks: Mapping[str, Shapes]) -> Table:
    """The counts of `count_layers`, with a sum for every network and over all."""
    counts = count_layers(networks)
    table = Table("network", "kind of layer")
    table.add_column("layers", justify="right")
    table.add_column("parameters", justify="right")
    for network in dict.fromkeys(count.network for count in counts):
        rows = [count for count in counts if count.network == network]
        for row in rows:
            table.add_row(network, row.kind, f"{row.layers}", f"{row.parameters:,}")
        table.add_row(network, "all", *_sums(rows), style="bold", end_section=True)
    table.add_row("all", "", *_sums(counts), style="bold")
    return table


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _tells(name: str) -> bool:
    """Whether the last part of a name tells the kind of its layer; a bias does not."""
    last = name.rpartition(".")[2]
    return last == "kernel" or last in _KINDS


def _kind(name: str, shapes: Shapes) -> str:
    last = name.rpartition(".")[2]
    if last != "kernel":
        return _KINDS[last]
    *window, _, _ = shapes[name].shape
    kind = "channel convolution" if len(window) == 3 else "convolution"
    return " ".join([kind, "x".join(map(str, window))])


def _sums(counts: list[LayerCount]) -> tuple[str, str]:
    layers = sum(count.layers for count in counts)
    return f"{layers}", f"{sum(count.parameters for count in counts):,}"
