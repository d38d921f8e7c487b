"""Models as directories: export, and import of exports and of training runs.

An export holds `config.json` (class, options, version), `model.safetensors` (dotted
names) and `orbax/` (the same values as an Orbax checkpoint). A training work directory
has its models in `checkpoints/STEP`, where the items `ema` and `config` are enough.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

import deepprism_jax
from deepprism_jax.layers.functional import Functional, values_of
from deepprism_jax.weights.items import (
    UnreadableError,
    load_items,
    replace_directory,
    save_items,
    steps,
)

Model = TypeVar("Model")

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
ORBAX = "orbax"
CHECKPOINTS = "checkpoints"

log = logging.getLogger(__name__)


class PretrainedMixin:
    """`save_pretrained` and `from_pretrained` for a module with `options`."""

    def save_pretrained(self, path: str | os.PathLike[str]) -> None:
        """Export the model; see `weights.pretrained.save_pretrained`."""
        save_pretrained(self, path)

    @classmethod
    def from_pretrained(cls: type[Model], path: str | os.PathLike[str]) -> Model:
        """Load a model; see `weights.pretrained.from_pretrained`."""
        return from_pretrained(cls, path)


def describe(model: Any) -> dict[str, Any]:
    """Return what makes a model again, JSON-able: class name, options, version."""
    return {
        "class": type(model).__name__,
        "options": dict(model.options),
        "deepprism_jax": deepprism_jax.__version__,
    }


def save_pretrained(model: Any, path: str | os.PathLike[str]) -> None:
    """Export a model to a directory, all of it or nothing; every process must call.

    Args:
        model: module with `options`, the keyword arguments of its constructor.
        path: directory to make. One that is there is replaced if it is an export of
            before or empty.

    Raises:
        FileExistsError: the directory holds something else.
        OSError: it could not be written.
    """
    path = Path(path).absolute()
    if path.exists() and not _is_export(path):
        raise FileExistsError(
            f"{path} holds something else than an export: choose another directory"
        )
    values = {name: np.asarray(x) for name, x in values_of(model).items()}
    part, writes = path.with_name(f"{path.name}.part"), jax.process_index() == 0
    try:
        if writes:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
        save_items(part / ORBAX, {"params": values})
        if writes:
            save_file(values, part / WEIGHTS)
            (part / CONFIG).write_text(json.dumps(describe(model), indent=2) + "\n")
            replace_directory(path, part)
    except SafetensorError as error:
        raise OSError(f"{part / WEIGHTS}: {error}") from error
    finally:
        if writes:
            shutil.rmtree(part, ignore_errors=True)


def from_pretrained(cls: type[Model], path: str | os.PathLike[str]) -> Model:
    """Load a model from an export, or from the newest checkpoint of a training run.

    A training run gives the moving average of its parameters. A checkpoint that cannot
    be read is passed over for the one before, with a warning.

    Raises:
        FileNotFoundError: the path is neither, or a run without a checkpoint to read.
        ValueError: the files are damaged, hold another class, or do not fit.
    """
    path = Path(path).absolute()
    if _is_run(path):
        return _from_run(cls, path)
    network = structure_of(cls, _read_description(path), path)
    if (path / WEIGHTS).is_file():
        try:
            values = load_file(path / WEIGHTS)
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"{path / WEIGHTS} is damaged: {error}") from None
    elif (path / ORBAX).is_dir():
        try:
            items = load_items(path / ORBAX, {"params": restore_target(network)})
            values = items["params"]
        except UnreadableError as error:
            raise ValueError(f"{path / ORBAX} cannot be read: {error}") from None
    else:
        raise FileNotFoundError(f"{path} has no {WEIGHTS} and no {ORBAX}/")
    return _fill(network, values, path)


def class_name(path: str | os.PathLike[str]) -> str:
    """Return the name of the class that an export or a training run holds.

    Raises:
        FileNotFoundError: the path is neither, or a run without a checkpoint to read.
        ValueError: it cannot be read.
    """
    path = Path(path).absolute()
    if not _is_run(path):
        return _read_description(path)["class"]
    for step in _checkpoints(path):
        where = path / CHECKPOINTS / str(step)
        with contextlib.suppress(UnreadableError):
            return load_items(where, {"config": None})["config"]["model"]["class"]
    raise FileNotFoundError(f"{path} has no checkpoint that can be read")


def _read_description(path: Path) -> dict[str, Any]:
    """Return what `describe` gave for an export."""
    if not (path / CONFIG).is_file():
        raise FileNotFoundError(
            f"{path} has no {CONFIG}: give a directory that save_pretrained wrote, or "
            "a training work directory with a checkpoint"
        )
    try:
        description = json.loads((path / CONFIG).read_text())
        return {"class": description["class"], "options": description["options"]}
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path / CONFIG} is not the description of a model: export it again"
        ) from None


def _from_run(cls: type[Model], path: Path) -> Model:
    """Load the newest readable `ema`, by the description in its `config`."""
    problem = ""
    for step in _checkpoints(path):
        where = path / CHECKPOINTS / str(step)
        try:
            description = load_items(where, {"config": None})["config"]["model"]
            network = structure_of(cls, description, where)
            values = load_items(where, {"ema": restore_target(network)})["ema"]
        except UnreadableError as error:
            problem = f"checkpoint {step}: {error}"
            log.warning("%s cannot be read, taking the one before: %s", where, error)
        else:
            return _fill(network, values, where)
    raise FileNotFoundError(f"{path} has no checkpoint that can be read: {problem}")


def _checkpoints(path: Path) -> list[int]:
    """Return the steps of a training run's checkpoints, newest first."""
    if found := steps(path / CHECKPOINTS):
        return found[::-1]
    raise FileNotFoundError(
        f"{path} has no checkpoint yet; wait for the first one of its run"
    )


def structure_of(cls: Any, description: Mapping[str, Any], path: Path) -> Functional:
    """Return the structure of the module that the description's options make.

    Raises:
        ValueError: they are of another class, or this version does not take them.
    """
    name, options = description["class"], dict(description["options"])
    if name != cls.__name__:
        raise ValueError(
            f"{path} holds {name}, not {cls.__name__}: call {name}.from_pretrained"
        )
    try:
        return Functional(nnx.eval_shape(lambda: cls(**options, rngs=nnx.Rngs(0))))
    except TypeError as error:
        raise ValueError(
            f"{path} does not suit deepprism_jax {deepprism_jax.__version__}: {error}"
        ) from None


def restore_target(network: Functional) -> dict[str, jax.ShapeDtypeStruct]:
    """Return where and as what a model's values are to be restored."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return {name: x.update(sharding=here) for name, x in network.shapes.items()}


def _fill(network: Functional, values: Mapping[str, Any], path: Path) -> Any:
    """Return the model with the values in it."""
    expected = network.shapes
    for verb, names in (
        ("lacks", expected.keys() - values.keys()),
        ("has in excess", values.keys() - expected.keys()),
    ):
        if names:
            some = ", ".join(sorted(names)[:3])
            raise ValueError(f"{path} {verb} {len(names)} values: {some}")
    for name, x in expected.items():
        if values[name].shape != x.shape:
            raise ValueError(
                f"{path}: {name} has shape {values[name].shape}, the options in "
                f"{CONFIG} ask for {x.shape}"
            )
    return network.bind({name: jax.numpy.asarray(x) for name, x in values.items()})


def _config_keys(path: Path) -> set[str]:
    """Return the keys of a directory's `config.json`; none where it is no such file."""
    try:
        return set(json.loads((path / CONFIG).read_text()))
    except (OSError, ValueError, TypeError):
        return set()


def _is_run(path: Path) -> bool:
    """Say whether this is a training run, before its first checkpoint too."""
    return (path / CHECKPOINTS).is_dir() or "config" in _config_keys(path)


def _is_export(path: Path) -> bool:
    """Say whether a directory holds nothing but an export of before, if anything."""
    if not path.is_dir():
        return False
    names = {p.name for p in path.iterdir()}
    # Other libraries name their files alike.
    ours = _config_keys(path) >= {"class", "options", "deepprism_jax"}
    return not names or (ours and names <= {CONFIG, WEIGHTS, ORBAX})
