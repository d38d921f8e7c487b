"""Which metrics can be measured here: those whose networks' weights are at hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepprism_jax.image_features import ImageFeatureNetwork
from deepprism_jax.losses.perceptual import PerceptualDistance
from deepprism_jax.losses.structural import WINDOW
from deepprism_jax.metrics.ms_ssim import MIN_SIDE
from deepprism_jax.models.efficientnet import EFFICIENTNET_LITE0
from deepprism_jax.models.feature_networks import feature_network
from deepprism_jax.models.inception import INCEPTION
from deepprism_jax.training.preflight import PreflightError, refusing
from deepprism_jax.weights import store
from deepprism_jax.weights.efficientnet import load_efficientnet
from deepprism_jax.weights.inception import load_inception
from deepprism_jax.weights.torchvision import (
    TORCHVISION_NAMES,
    load_perceptual_distance,
)

ROLES = ("score", "frechet", "kernel", "precision", "recall")
"""What is made of the features of two sets of images."""

INCEPTION_METRICS: dict[str, str] = dict(
    zip(ROLES, ("is", "fid", "kid", "precision", "recall"), strict=True)
)
LITE0_METRICS: dict[str, str] = {role: f"efficientnet_lite0_{role}" for role in ROLES}
"""By another network the figures are others, and bear other names."""

LPIPS_METRICS = {f"lpips_{net}": net for net in TORCHVISION_NAMES}

METRICS = (
    *("psnr", "ssim", "ms_ssim"),
    *LPIPS_METRICS,
    *INCEPTION_METRICS.values(),
    *LITE0_METRICS.values(),
)
"""All that `eval.py --metrics` takes."""


@dataclass(frozen=True)
class Distribution:
    """A network whose features of whole sets of images are compared."""

    key: str
    """Its name in the registry of weights."""
    network: ImageFeatureNetwork
    params: Any
    fingerprint: str
    metrics: dict[str, str]
    """Role to the metric's name, of those that are wanted."""


@dataclass
class Suite:
    """The metrics to measure, with their networks loaded."""

    pairs: list[str] = field(default_factory=list)
    """Those of a pair of images that need no network."""
    distances: dict[str, PerceptualDistance] = field(default_factory=dict)
    """Those of a pair that do."""
    distributions: list[Distribution] = field(default_factory=list)
    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    """Name, weights and resizing of every network, by its name in the registry."""
    skipped: list[str] = field(default_factory=list)
    """A line for every network that is missing, with the remedy."""


def make_suite(
    wanted: Sequence[str],
    image_size: tuple[int, int],
    channels: int,
    *,
    pairs: bool = True,
) -> Suite:
    """Load what the metrics need.

    Args:
        wanted: names of `METRICS`; none takes all that these images and the weights
            at hand allow.
        image_size: height and width of the images.
        channels: networks see gray and RGB images.
        pairs: whether every image has a reconstruction to be compared with.

    Raises:
        PreflightError: a metric does not exist, or does not fit the images, or its
            weights cannot be read.
    """
    unknown = [name for name in wanted if name not in METRICS]
    if unknown:
        raise PreflightError(
            f"unknown metric {unknown[0]!r}; choose from {', '.join(METRICS)}"
        )
    suite = Suite()
    with refusing():
        for name in dict.fromkeys(wanted) or METRICS:
            reason = _unfit(name, image_size, channels, pairs)
            if reason and wanted:
                raise PreflightError(f"{name} {reason}")
            if reason:
                continue
            try:
                _add(suite, name)
            except ValueError as error:
                if wanted:
                    raise
                suite.skipped.append(f"{name}: {error}")
    return suite


def _unfit(name: str, image_size: tuple[int, int], channels: int, pairs: bool) -> str:
    """Return why a metric cannot be measured on such images, or nothing."""
    distributions = (*INCEPTION_METRICS.values(), *LITE0_METRICS.values())
    if not pairs and name not in distributions:
        return "compares images with reconstructions, and these are generated"
    least = {"psnr": 1, "ssim": WINDOW, "ms_ssim": MIN_SIDE}.get(name)
    if name in LPIPS_METRICS:
        least = feature_network(LPIPS_METRICS[name]).min_size
    if min(image_size) < (least or 1):
        height, width = image_size
        return (
            f"needs images of at least {least}x{least}, and these are {height}x{width}"
        )
    if name not in ("psnr", "ssim", "ms_ssim") and channels not in (1, 3):
        return f"needs gray or RGB images, and these have {channels} channels"
    return ""


def _add(suite: Suite, name: str) -> None:
    """Load what a metric needs; weights that are none are left out with their error.

    Raises:
        ValueError: see the loaders.
    """
    if name in LPIPS_METRICS:
        _add_distance(suite, name, LPIPS_METRICS[name])
    elif name in INCEPTION_METRICS.values():
        _add_distribution(
            suite, name, "inception", INCEPTION, load_inception, INCEPTION_METRICS
        )
    elif name in LITE0_METRICS.values():
        _add_distribution(
            suite,
            name,
            "efficientnet_lite0",
            EFFICIENTNET_LITE0,
            load_efficientnet,
            LITE0_METRICS,
        )
    else:
        suite.pairs.append(name)


def _add_distance(suite: Suite, name: str, net: str) -> None:
    backbone = TORCHVISION_NAMES[net]
    paths = {key: store.find(key) for key in (backbone, name)}
    missing = [key for key, path in paths.items() if path is None]
    if missing:
        leave_out(suite.skipped, name, missing)
        return
    for key, path in paths.items():
        assert path is not None
        suite.facts[key] = {"name": key, **weights_of(path)}
    weights, heads = paths.values()
    assert weights is not None
    suite.distances[name] = load_perceptual_distance(net, weights, heads)


def _add_distribution(
    suite: Suite,
    name: str,
    key: str,
    network: ImageFeatureNetwork,
    load: Callable[[Path], Any],
    metrics: dict[str, str],
) -> None:
    role = next(role for role, metric in metrics.items() if metric == name)
    there = next((d for d in suite.distributions if d.key == key), None)
    if there is not None:
        there.metrics[role] = name
        return
    path = store.find(key)
    if path is None:
        leave_out(suite.skipped, name, [key])
        return
    fingerprint = store.fingerprint(path)
    suite.distributions.append(
        Distribution(key, network, load(path), fingerprint, {role: name})
    )
    suite.facts[key] = {
        "name": network.name,
        **weights_of(path),
        "resize": network.resize,
    }


def weights_of(path: Path) -> dict[str, str]:
    """Return the fingerprint of weights, and how the file was checked."""
    checked = store.facts(path).get("checked", "nothing")
    return {"weights": store.fingerprint(path), "checked": checked}


def leave_out(skipped: list[str], name: str, missing: Sequence[str]) -> None:
    """Note that a metric is left out; one line for all metrics of the same weights."""
    remedy = (
        f"the weights of {' and '.join(missing)} are not here; "
        f"python -m deepprism_jax.weights get {' '.join(missing)}"
    )
    for number, line in enumerate(skipped):
        names, _, rest = line.partition(": ")
        if rest == remedy:
            skipped[number] = f"{names}, {name}: {remedy}"
            return
    skipped.append(f"{name}: {remedy}")
