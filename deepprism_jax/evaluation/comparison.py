"""A trained model beside what a code of the same size reaches without a network."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import jax

from deepprism_jax.data import train_batches
from deepprism_jax.evaluation.reconstruction import Reconstruct, by_function
from deepprism_jax.evaluation.trained import Trained
from deepprism_jax.metrics import bicubic_down_up, fit_pca
from deepprism_jax.training.config import DataConfig
from deepprism_jax.training.preflight import PreflightError, refusing
from deepprism_jax.training.setup import open_split
from deepprism_jax.version import code_version

FEWEST, MOST = 20_000, 50_000
"""Training images that PCA is fitted on: the split, but within these bounds."""

CHUNK = 250

Watch = Callable[[Iterable[Any], int], Iterable[Any]]
"""Passes batches on, and is told how many there are."""


@dataclass(frozen=True)
class Method:
    """A way to code images, and what it needs for it."""

    reconstruct: Reconstruct
    parameters: int
    """Numbers that coding and decoding need, whatever the image."""
    code: int
    """Numbers that an image becomes."""


def choose_data(trained: Trained, **given: Any) -> DataConfig:
    """Return the data to evaluate on: those trained on, but for what is given.

    None is not given. Another source takes no path, name or split over. The number of
    channels is the model's; images are converted.

    Raises:
        PreflightError: nothing says which source.
    """
    given = {name: value for name, value in given.items() if value is not None}
    data = trained.data or DataConfig()
    if trained.data is None and "source" not in given:
        raise PreflightError(
            "an export does not name its data; give --source, and --image-size "
            f"unless it is {data.image_size[0]} {data.image_size[1]}"
        )
    if given.get("source", data.source) != data.source:
        data = DataConfig(image_size=data.image_size)
    return replace(data, **given, channels=trained.model.options["image_channels"])


def make_methods(
    trained: Trained,
    data: DataConfig,
    *,
    baselines: bool = True,
    sharding: Any = None,
    watch: Watch = lambda batches, count: batches,
) -> tuple[dict[str, Method], list[str]]:
    """Return the methods to compare by name, and notes on them for the reader.

    Args:
        trained: the model.
        data: its images; PCA is fitted on their training split.
        baselines: besides the model, bicubic down-up by its factor and by the one that
            matches its code (usually the same), and PCA with as many components as
            its code has numbers.
        sharding: where the model's parameters are to lie.
        watch: wraps the training batches and their number, for a progress bar.

    Raises:
        PreflightError: images of this size do not fit the model.
    """
    with refusing():
        code = trained.code_size((*data.image_size, data.channels))
    model = Method(trained.reconstructor(sharding), trained.parameters, code)
    if not baselines:
        return {"model": model}, []
    methods = {"model": model}
    for factor in sorted({trained.model.factor, matching_factor(data, code)}):
        methods[f"bicubic {factor}x"] = Method(
            by_function(partial(bicubic_down_up, factor=factor)),
            parameters=0,
            code=_resampled(data, factor),
        )
    try:
        name, pca, note = pca_method(data, code, watch=watch)
    except PreflightError as error:
        return methods, [f"PCA is left out: {error}"]
    return {**methods, name: pca}, [note]


def matching_factor(data: DataConfig, code: int) -> int:
    """Return by what to shrink images for as many numbers as a code has, or fewer.

    It is the least that divides both sides, so that the small image fits the code;
    where even a pixel is too much, the largest.
    """
    divisors = [n for n in range(1, min(data.image_size) + 1) if _divides(data, n)]
    return next((n for n in divisors if _resampled(data, n) <= code), divisors[-1])


def _divides(data: DataConfig, factor: int) -> bool:
    return not any(side % factor for side in data.image_size)


def _resampled(data: DataConfig, factor: int) -> int:
    height, width = data.image_size
    return (height // factor) * (width // factor) * data.channels


def pca_method(
    data: DataConfig,
    components: int,
    *,
    watch: Watch = lambda batches, count: batches,
) -> tuple[str, Method, str]:
    """Fit PCA to the training split; return its name, itself and a note on the fit.

    Images are drawn as for training but not mirrored: a source of few, large
    photographs gives many crops. The split counts at least as `FEWEST` and at most as
    `MOST` images.

    Args:
        data: what the model was trained on.
        components: as many as the model's code has numbers.
        watch: as in `make_methods`.

    Raises:
        PreflightError: the training split cannot be opened.
    """
    with refusing():
        source = open_split(data, data.train_split)
        stream = train_batches(
            source,
            batch_size=CHUNK,
            image_size=data.image_size,
            channels=data.channels,
            crop=data.crop,
            flip=False,
        )
    chunks = -(-min(max(len(source), FEWEST), MOST) // CHUNK)
    batches = watch(islice(stream, chunks), chunks)
    pca = fit_pca((batch["image"] for batch in batches), components)
    found = len(pca.components)
    note = (
        f"PCA-{found} was fitted on {pca.images:,} images of split {data.train_split!r}"
    )
    if found < components:
        note += f", which have no {components:,} independent components"
    return (
        f"PCA-{found}",
        Method(by_function(pca.reconstruct), pca.parameters, found),
        note,
    )


def batch_size(
    asked: int, image_size: tuple[int, int], images: int, devices: int
) -> int:
    """Return the batch that was asked for, or for 0 one that suits the devices.

    That is 128 images of 32x32 a device, as many pixels of larger ones, and no more
    than there are images.

    Raises:
        ValueError: what was asked for is not divisible by the devices.
    """
    if asked % devices or asked < 0:
        raise ValueError(
            f"batch size {asked} must be a multiple of the {devices} devices; "
            f"choose {max(1, round(asked / devices)) * devices}"
        )
    each = max(1, 128 * 32 * 32 // (image_size[0] * image_size[1]))
    return asked or min(each, -(-images // devices)) * devices


def provenance(trained: Trained, data: DataConfig, images: int) -> dict[str, Any]:
    """Return what makes the figures mean something: model, data, versions, device."""
    return {
        "model": type(trained.model).__name__,
        "options": dict(trained.model.options),
        "step": trained.step,
        "source": data.source,
        "path": data.path,
        "name": data.name,
        "split": data.eval_split,
        "train_split": data.train_split,
        "images": images,
        "image_size": list(data.image_size),
        "channels": data.channels,
        "resize": data.resize,
        "deepprism_jax": code_version(),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }
