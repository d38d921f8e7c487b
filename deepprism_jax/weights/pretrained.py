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
from deepprism_jax.weights.items import (
    UnreadableError,
    flatten_names,
    load_items,
    save_items,
    steps,
    unflatten_names,
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


def named_values(model: Any) -> dict[str, Any]:
    """Return all values of a model, parameters and buffers, by dotted names."""
    return flatten_names(nnx.to_pure_dict(nnx.state(model)))


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
    values = {name: np.asarray(x) for name, x in named_values(model).items()}
    part, writes = path.with_name(f"{path.name}.part"), jax.process_index() == 0
    try:
        if writes:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
        save_items(part / ORBAX, {"params": values})
        if writes:
            save_file(values, part / WEIGHTS)
            (part / CONFIG).write_text(json.dumps(describe(model), indent=2) + "\n")
            if path.exists():
                shutil.rmtree(path)
            part.rename(path)
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
        FileNotFoundError: the path is neither.
        ValueError: the files are damaged, hold another class, or do not fit.
    """
    path = Path(path).absolute()
    if (path / CHECKPOINTS).is_dir():
        return _from_run(cls, path)
    model = _make(cls, _read_description(path), path)
    if (path / WEIGHTS).is_file():
        try:
            values = load_file(path / WEIGHTS)
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"{path / WEIGHTS} is damaged: {error}") from None
    elif (path / ORBAX).is_dir():
        try:
            values = load_items(path / ORBAX, {"params": _target(model)})["params"]
        except UnreadableError as error:
            raise ValueError(f"{path / ORBAX} cannot be read: {error}") from None
    else:
        raise FileNotFoundError(f"{path} has no {WEIGHTS} and no {ORBAX}/")
    return _fill(model, values, path)


def class_name(path: str | os.PathLike[str]) -> str:
    """Return the name of the class that an export or a training run holds.

    Raises:
        FileNotFoundError: the path is neither.
        ValueError: it cannot be read.
    """
    path = Path(path).absolute()
    if not (path / CHECKPOINTS).is_dir():
        return _read_description(path)["class"]
    for step in reversed(steps(path / CHECKPOINTS)):
        where = path / CHECKPOINTS / str(step)
        with contextlib.suppress(UnreadableError):
            return load_items(where, {"config": None})["config"]["model"]["class"]
    raise FileNotFoundError(f"{path} has no checkpoint to load")


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
    problem = "it has none yet"
    directory = path / CHECKPOINTS
    for step in reversed(steps(directory)):
        where = directory / str(step)
        try:
            description = load_items(where, {"config": None})["config"]["model"]
            model = _make(cls, description, where)
            values = load_items(where, {"ema": _target(model)})["ema"]
        except UnreadableError as error:
            problem = f"checkpoint {step}: {error}"
            log.warning("%s cannot be read, taking the one before: %s", where, error)
        else:
            return _fill(model, values, where)
    raise FileNotFoundError(f"{path} has no checkpoint to load: {problem}")


def _make(cls: Any, description: Mapping[str, Any], path: Path) -> Any:
    """Return the module with the description's options and abstract values."""
    name, options = description["class"], dict(description["options"])
    if name != cls.__name__:
        raise ValueError(
            f"{path} holds {name}, not {cls.__name__}: call {name}.from_pretrained"
        )
    try:
        return nnx.eval_shape(lambda: cls(**options, rngs=nnx.Rngs(0)))
    except TypeError as error:
        raise ValueError(
            f"{path} does not suit deepprism_jax {deepprism_jax.__version__}: {error}"
        ) from None


def _target(model: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Return where and as what a model's values are to be restored."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here)
        for name, x in named_values(model).items()
    }


def _fill(model: Any, values: Mapping[str, Any], path: Path) -> Any:
    """Return the abstract model with the values in it."""
    graphdef, state = nnx.split(model)
    pure = nnx.to_pure_dict(state)
    expected = flatten_names(pure)
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
    arrays = {name: jax.numpy.asarray(x) for name, x in values.items()}
    nnx.replace_by_pure_dict(state, unflatten_names(arrays, pure))
    return nnx.merge(graphdef, state)


def _is_export(path: Path) -> bool:
    """Say whether a directory holds nothing but an export of before, if anything."""
    if not path.is_dir():
        return False
    return {p.name for p in path.iterdir()} <= {CONFIG, WEIGHTS, ORBAX}
