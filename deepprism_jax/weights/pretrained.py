"""Models as directories: export, and import of exports and of training runs.

An export holds `config.json` (class, options, version), `model.safetensors` (dotted
names) and `orbax/` (the same values as an Orbax checkpoint). A training work directory
has its models in `checkpoints/STEP`, where the items `ema` and `config` are enough.
All of them may lie in a bucket, `gs://BUCKET/FOLDER`.
"""

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import load, save

import deepprism_jax
from deepprism_jax.files import replace_directory
from deepprism_jax.layers.functional import Functional, values_of
from deepprism_jax.paths import AnyPath, absolute, remove_tree, write_whole
from deepprism_jax.weights.included import list_pretrained, located
from deepprism_jax.weights.items import all_or_none, load_items, save_items, steps
from deepprism_jax.weights.manifest import UnreadableError, is_complete, read_manifest

Model = TypeVar("Model")

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
ORBAX = "orbax"
CHECKPOINTS = "checkpoints"
BEST = "best"
"""`checkpoints/best` stands for the step of the highest score."""
MODELS = "models"
"""Key of a description: names of the models whose values are rows of each array."""

log = logging.getLogger(__name__)


class PretrainedMixin:
    """`save_pretrained` and `from_pretrained` for a module with `options`."""

    def save_pretrained(self, path: str | os.PathLike[str]) -> None:
        """Export the model; see `weights.pretrained.save_pretrained`."""
        save_pretrained(self, path)

    @classmethod
    def from_pretrained(
        cls: type[Model], path: str | os.PathLike[str], *, model: str = ""
    ) -> Model:
        """Load a model by name or path; see `weights.pretrained.from_pretrained`."""
        return from_pretrained(cls, path, model=model)


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

    On a file system it is renamed once it is complete; in a bucket `config.json` is
    written last, without which it is no export.

    Raises:
        FileExistsError: the directory holds something else.
        OSError: it could not be written.
    """
    path = absolute(path)
    if path.exists() and not _is_export(path):
        raise FileExistsError(
            f"{path} holds something else than an export: choose another directory"
        )
    values = {name: np.asarray(x) for name, x in values_of(model).items()}
    writes = jax.process_index() == 0
    # What a bucket has cannot be renamed.
    part = path.with_name(f"{path.name}.part") if isinstance(path, Path) else path

    def make_room() -> None:
        if writes:
            remove_tree(part)
            part.mkdir(parents=True, exist_ok=True)

    all_or_none(make_room)
    try:
        save_items(part / ORBAX, {"params": values})
        if writes:
            write_whole(part / WEIGHTS, save(values))
            write_whole(part / CONFIG, json.dumps(describe(model), indent=2) + "\n")
            if isinstance(path, Path) and isinstance(part, Path):
                replace_directory(path, part)
    finally:
        if writes and part != path:
            remove_tree(part)


def from_pretrained(
    cls: type[Model], path: str | os.PathLike[str], *, model: str = ""
) -> Model:
    """Load a model of the package by its name, or from an export, from a training run
    or from one of its checkpoints.

    A bare name is one of `weights.list_pretrained()`, unless there is such a directory.

    A training run gives the moving average of its parameters, those of its newest
    checkpoint; one that cannot be read is passed over for the one before, with a
    warning. `RUN/checkpoints/STEP` gives those of that step, and `RUN/checkpoints/best`
    those of the best step that was kept. Of a run that trains several models together,
    `model` names the one.

    Raises:
        FileNotFoundError: the path is none of them, or a run without a checkpoint to
            read.
        ValueError: the files are damaged, hold another class, or do not fit; or there
            are several models and none of this name.
    """
    path = absolute(located(path))
    if (found := checkpoint_at(path)) is not None:
        try:
            return _from_checkpoint(cls, found, model)
        except UnreadableError as error:
            raise ValueError(f"{found} cannot be read: {error}") from None
    if _is_run(path):
        return _from_run(cls, path, model)
    network = structure_of(cls, _read_description(path), path)
    if (path / WEIGHTS).exists():
        try:
            values = load((path / WEIGHTS).read_bytes())
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
    path = absolute(located(path))
    found = checkpoint_at(path)
    if found is None and not _is_run(path):
        return _read_description(path)["class"]
    runs = path / CHECKPOINTS
    for where in [found] if found else [runs / str(s) for s in _checkpoints(path)]:
        with contextlib.suppress(UnreadableError):
            return load_items(where, {"config": None})["config"]["model"]["class"]
    raise FileNotFoundError(f"{path} has no checkpoint that can be read")


def checkpoint_at(path: str | os.PathLike[str]) -> AnyPath | None:
    """Return the checkpoint that a path names, or None where it names none.

    Raises:
        FileNotFoundError: there is no complete checkpoint of that step; or it is
            `RUN/checkpoints/best`, and none has a score.
    """
    path = absolute(path)
    if path.parent.name != CHECKPOINTS:
        return None
    if path.name != BEST or path.is_dir():
        if not path.name.isdecimal():
            return None
        if not is_complete(path):
            there = ", ".join(map(str, steps(path.parent))) or "none"
            raise FileNotFoundError(
                f"{path} is no complete checkpoint; choose one of those there: {there}"
            )
        return path
    scores = []
    for step in steps(path.parent):
        with contextlib.suppress(UnreadableError):
            score = read_manifest(path.parent / str(step))["score"]
            if score is not None:
                scores.append((score, step))
    if not scores:
        raise FileNotFoundError(
            f"{path}: no checkpoint has a score; give a step, or train with "
            "--train.keep-best"
        )
    return path.parent / str(max(scores)[1])


def _read_description(path: AnyPath) -> dict[str, Any]:
    """Return what `describe` gave for an export."""
    if not (path / CONFIG).exists():
        hidden = path.name in list_pretrained()
        shadows = "; it hides the model of the package of that name" if hidden else ""
        raise FileNotFoundError(
            f"{path} has no {CONFIG}: give a directory that save_pretrained wrote, or "
            f"a training work directory with a checkpoint{shadows}"
        )
    if "_class_name" in _config_keys(path):
        raise ValueError(
            f"{path} is of diffusers: run python -m deepprism_jax.weights import "
            f"{path} OUTPUT, and give OUTPUT"
        )
    try:
        description = json.loads((path / CONFIG).read_text())
        return {"class": description["class"], "options": description["options"]}
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path / CONFIG} is not the description of a model: export it again"
        ) from None


def _from_checkpoint(cls: type[Model], where: AnyPath, model: str) -> Model:
    """Load the `ema` of a checkpoint, by the description in its `config`."""
    description = load_items(where, {"config": None})["config"]["model"]
    network = structure_of(cls, description, where)
    target = restore_target(network)
    if not (names := description.get(MODELS)):
        return _fill(network, load_items(where, {"ema": target})["ema"], where)
    if model not in names:
        some = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise ValueError(
            f"{where} holds {len(names)} models; give model=, one of {some}"
        )
    rows = {name: x.update(shape=(len(names), *x.shape)) for name, x in target.items()}
    values = load_items(where, {"ema": rows})["ema"]
    one = {name: x[names.index(model)] for name, x in values.items()}
    return _fill(network, one, where)


def _from_run(cls: type[Model], path: AnyPath, model: str) -> Model:
    """Load the newest checkpoint that can be read."""
    problem = ""
    for step in _checkpoints(path):
        where = path / CHECKPOINTS / str(step)
        try:
            return _from_checkpoint(cls, where, model)
        except UnreadableError as error:
            problem = f"checkpoint {step}: {error}"
            log.warning("%s cannot be read, taking the one before: %s", where, error)
    raise FileNotFoundError(f"{path} has no checkpoint that can be read: {problem}")


def _checkpoints(path: AnyPath) -> list[int]:
    """Return the steps of a training run's checkpoints, newest first."""
    if found := steps(path / CHECKPOINTS):
        return found[::-1]
    raise FileNotFoundError(
        f"{path} has no checkpoint yet; wait for the first one of its run"
    )


def structure_of(cls: Any, description: Mapping[str, Any], path: AnyPath) -> Functional:
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


def _fill(network: Functional, values: Mapping[str, Any], path: AnyPath) -> Any:
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
    # What was stored in half precision is widened.
    return network.bind(
        {name: jax.numpy.asarray(values[name], x.dtype) for name, x in expected.items()}
    )


def _config_keys(path: AnyPath) -> set[str]:
    """Return the keys of a directory's `config.json`; none where it is no such file."""
    try:
        return set(json.loads((path / CONFIG).read_text()))
    except (OSError, ValueError, TypeError):
        return set()


def _is_run(path: AnyPath) -> bool:
    """Say whether this is a training run, before its first checkpoint too."""
    return (path / CHECKPOINTS).is_dir() or "config" in _config_keys(path)


def _is_export(path: AnyPath) -> bool:
    """Say whether a directory holds nothing but an export of before, if anything."""
    if not path.is_dir():
        return False
    names = {p.name for p in path.iterdir()}
    # Other libraries name their files alike.
    ours = _config_keys(path) >= {"class", "options", "deepprism_jax"}
    return not names or (ours and names <= {CONFIG, WEIGHTS, ORBAX})
