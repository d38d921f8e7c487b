"""A trained autoencoder, from a training work directory or from an export."""

import logging
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding

from deepprism_jax import models
from deepprism_jax.evaluation.pretrained import Pretrained
from deepprism_jax.evaluation.reconstruction import Reconstruct, by_network
from deepprism_jax.layers.functional import Functional, values_of
from deepprism_jax.training.checkpoints import Checkpoints
from deepprism_jax.training.config import Config, DataConfig
from deepprism_jax.training.preflight import PreflightError, refusing
from deepprism_jax.training.sharding import spread
from deepprism_jax.training.workdir import read_config
from deepprism_jax.weights.items import load_items, steps
from deepprism_jax.weights.manifest import UnreadableError
from deepprism_jax.weights.pretrained import (
    CHECKPOINTS,
    ORBAX,
    WEIGHTS,
    checkpoint_at,
    class_name,
    restore_target,
    structure_of,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A model, and what is known of how it came about."""

    model: Any
    data: DataConfig | None = None
    """What it was trained on; an export does not tell."""
    step: int | None = None
    """Training step of the checkpoint; an export does not tell."""
    results: Path = Path()
    """Where figures on it belong: the work directory or one in it, or a directory
    beside an export, which holds nothing else than the model."""

    name: str = ""
    """What it is called, where it is of the package."""

    @property
    def parameters(self) -> int:
        """Numbers that encoding and decoding need, the codes of a codebook included."""
        # How often a code was used matters to training only.
        shapes = Functional(self.model).shapes.items()
        return sum(x.size for name, x in shapes if name != "codebook.usage")

    def code_size(self, image_shape: tuple[int, int, int]) -> int:
        """Return how many numbers an image [h, w, c] becomes.

        A Gaussian posterior counts its means, a quantised code its numbers in the
        codebook.

        Raises:
            ValueError: such an image does not fit the model.
        """
        network = Functional(self.model)
        code = jax.eval_shape(
            lambda values, images: network.bind(values).encode(images),
            network.shapes,
            jax.ShapeDtypeStruct((1, *image_shape), "float32"),
        )
        numbers = code.indices if hasattr(code, "indices") else code.mean
        return math.prod(numbers.shape)

    def reconstructor(self, sharding: Any = None) -> Reconstruct:
        """Return a jitted function from 8-bit images to their reconstructions.

        Args:
            sharding: where the parameters are to lie; where they are if None.
                Replicated over a mesh, it spreads the images over its devices.
        """
        values = jax.device_put(values_of(self.model), sharding)
        reconstruct = partial(by_network, Functional(self.model))
        if isinstance(sharding, NamedSharding):
            reconstruct = spread(sharding.mesh, reconstruct)
        return partial(jax.jit(reconstruct), values)


def load_trained(path: str | Path) -> Trained:
    """Load the newest readable checkpoint of a work directory, or a given one, or an
    export.

    A work directory gives the moving average of its parameters. `RUN/checkpoints/STEP`
    and `RUN/checkpoints/best` name one of its checkpoints; figures on that belong in
    `RUN/eval-STEP`.

    Raises:
        PreflightError: the directory is neither, or cannot be read.
    """
    path = Path(path)
    if path.parts[:1] == ("gs:",):
        raise PreflightError(
            "models in a bucket are not evaluated; copy the run here first, with "
            "`gcloud storage cp -r`"
        )
    with refusing():
        chosen = checkpoint_at(path)
    if chosen is not None:
        path = path.absolute().parents[1]
    if not path.is_dir():
        raise PreflightError(
            f"{path} is no directory; give the work directory of a run or an export"
        )
    if (path / WEIGHTS).is_file() or (path / ORBAX).is_dir():
        with refusing():
            model = getattr(models, class_name(path)).from_pretrained(path)
        beside = path.absolute().with_name(f"{path.absolute().name}-eval")
        return Trained(model, results=beside)
    with refusing():
        config = read_config(path)
    if not isinstance(config, Config):
        raise PreflightError(f"{path} is no run of an autoencoder")
    if not steps(path / CHECKPOINTS):
        raise PreflightError(
            f"{path} has no checkpoint yet; wait for the first one of its run"
        )
    if chosen is None:
        checkpoints = Checkpoints(path / CHECKPOINTS, keep=1, say=log.warning)
        restore = checkpoints.restore
    else:
        restore = partial(_read, Path(chosen))
    _, items = restore({"config": None})
    description = items["config"]["model"]
    with refusing():
        cls = getattr(models, description["class"])
        network = structure_of(cls, description, path)
    step, items = restore({"ema": restore_target(network)})
    results = path if chosen is None else path / f"eval-{step}"
    return Trained(network.bind(items["ema"]), config.data, step, results)


def of_package(found: Pretrained) -> Trained:
    """Return an autoencoder of the package.

    Raises:
        PreflightError: it cannot be read.
    """
    with refusing():
        cls = getattr(models, class_name(found.folder))
        model = cls.from_pretrained(found.folder)
    return Trained(model, found.config.data, found.step, found.results, found.name)


def _read(path: Path, targets: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return the step and the items of one checkpoint."""
    try:
        return int(path.name), load_items(path, targets)
    except UnreadableError as error:
        raise PreflightError(f"{path} cannot be read: {error}") from None
