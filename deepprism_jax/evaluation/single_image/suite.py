"""Which measures of samples can be taken here: those whose weights are at hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax

from deepprism_jax.evaluation.networks import leave_out, weights_of
from deepprism_jax.evaluation.table4 import column
from deepprism_jax.metrics.lpips_diversity import LPIPSDiversity
from deepprism_jax.models.early_maps import EARLY_MAPS, MIN_SIDE
from deepprism_jax.models.feature_networks import feature_network
from deepprism_jax.training.preflight import PreflightError, refusing
from deepprism_jax.weights import store
from deepprism_jax.weights.efficientnet import load_efficientnet
from deepprism_jax.weights.inception import load_inception
from deepprism_jax.weights.torchvision import (
    TORCHVISION_NAMES,
    load_feature_network,
    load_perceptual_distance,
)

SIFID_METRICS: dict[str, str] = {
    "sifid_inception": "inception",
    "sifid_inception_64": "inception_64",
    **{f"sifid_{net}": net for net in TORCHVISION_NAMES},
    "efficientnet_lite0_sifid": "efficientnet_lite0",
}
"""Metric to its layer in `models.early_maps`."""

PIXEL_DIVERSITY = "pixel_diversity"

LPIPS_DIVERSITIES = {f"lpips_diversity_{net}": net for net in TORCHVISION_NAMES}

METRICS = (*SIFID_METRICS, PIXEL_DIVERSITY, *LPIPS_DIVERSITIES)
"""All that `--metrics` takes of samples of one image."""

Compute = Callable[..., Any]


@dataclass
class Suite:
    """The measures to take, compiled when they first see samples of a size."""

    maps: dict[str, Compute] = field(default_factory=dict)
    """Metric to what gives the maps of 8-bit images [b, h, w, c]."""
    diversities: dict[str, Compute] = field(default_factory=dict)
    """Metric to what makes a state of samples and their mask."""
    pixels: bool = False
    """Whether diversity of pixels is measured, which needs no network."""
    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    """Name and weights of every network, by its name in the registry."""
    skipped: list[str] = field(default_factory=list)
    """A line for everything that is left out, with the remedy."""

    def __bool__(self) -> bool:
        """Tell whether anything is measured."""
        return bool(self.maps or self.diversities or self.pixels)


def make_suite(wanted: Sequence[str], sizes: Sequence[tuple[int, int]]) -> Suite:
    """Load what the measures need.

    Args:
        wanted: names of `METRICS`; none takes all that the images and the weights at
            hand allow.
        sizes: height and width of all samples and training images.

    Raises:
        PreflightError: a metric does not exist, does not fit the images, its weights
            cannot be read, or nothing is left to measure.
    """
    unknown = [name for name in wanted if name not in METRICS]
    if unknown:
        raise PreflightError(
            f"{unknown[0]!r} does not measure samples of one image; choose from "
            f"{', '.join(METRICS)}"
        )
    smallest = min(sizes, key=min)
    suite = Suite()
    with refusing():
        for name in dict.fromkeys(wanted) or METRICS:
            least = _least_side(name)
            if min(smallest) < least:
                line = (
                    f"{name}: needs images of at least {least}x{least}, and one is "
                    f"{smallest[0]}x{smallest[1]}"
                )
                if wanted:
                    raise ValueError(line)
                suite.skipped.append(line)
                continue
            try:
                _add(suite, name)
            except ValueError as error:  # of a file that is not what it is called
                if wanted:
                    raise
                suite.skipped.append(f"{name}: {error}")
    if not suite:
        raise PreflightError(f"nothing to measure: {'; '.join(suite.skipped)}")
    return suite


def _least_side(name: str) -> int:
    if name in SIFID_METRICS:
        return MIN_SIDE
    if name in LPIPS_DIVERSITIES:
        return feature_network(LPIPS_DIVERSITIES[name]).min_size
    return 1


def _add(suite: Suite, name: str) -> None:
    paths = {key: store.find(key) for key in column(name).networks}
    missing = [key for key, path in paths.items() if path is None]
    if missing:
        leave_out(suite.skipped, name, missing)
        return
    found = [path for path in paths.values() if path is not None]
    if name == PIXEL_DIVERSITY:
        suite.pixels = True
    elif name in SIFID_METRICS:
        suite.maps[name] = _maps(SIFID_METRICS[name], *found)
    else:
        suite.diversities[name] = _diversity(LPIPS_DIVERSITIES[name], *found)
    for key, path in zip(paths, found, strict=True):
        layer = EARLY_MAPS.get(key)
        words = key if layer is None else layer.network
        suite.facts[key] = {"name": words, **weights_of(path)}


def _maps(layer: str, path: Path) -> Compute:
    """Return a jitted function from images to maps; weights are its arguments."""
    if layer in TORCHVISION_NAMES:
        params = load_feature_network(layer, path)
    elif layer == "efficientnet_lite0":
        params = load_efficientnet(path)
    else:
        params = load_inception(path)
    return partial(jax.jit(EARLY_MAPS[layer].apply), params)


def _diversity(net: str, weights: Path, heads: Path) -> Compute:
    distance = load_perceptual_distance(net, weights, heads)

    @jax.jit
    def state(frozen: Any, samples: Any, mask: Any) -> LPIPSDiversity:
        return LPIPSDiversity.from_batch(samples, distance, frozen, mask)

    return partial(state, distance.frozen)
