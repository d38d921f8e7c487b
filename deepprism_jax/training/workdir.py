"""The directory of a run: whose it is, and that no other run writes to it.

WORKDIR/config.json                  the config, complete
        metrics.jsonl                numbers and messages, one JSON object a line
        tensorboard/                 the same numbers, and pictures
        reconstructions/STEP.png     input over reconstruction, at each evaluation;
                                     or samples/, what a denoiser draws
        images/NAME.png              the images that a denoiser is trained on
        checkpoints/STEP/            state, ema, data, config
        model/                       the export, once the run is done
        cache/                       compiled programs, for runs that go on
        profile/                     traces of `train.profile_steps`

It may be a folder in a bucket, `gs://BUCKET/FOLDER`. Nothing keeps a second run out of
that: a lock that outlives a machine that is taken away would keep out the run itself.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import deepprism_jax
from deepprism_jax.paths import (
    PathLike,
    as_path,
    check_reachable,
    remote_errors,
    write_whole,
)
from deepprism_jax.training import compilation
from deepprism_jax.training.preflight import PreflightError, refusing
from deepprism_jax.training.systems import (
    CONFIGS,
    Experiment,
    name_of,
    system_of,
)
from deepprism_jax.weights.items import flatten_names, steps
from deepprism_jax.weights.pretrained import CHECKPOINTS, CONFIG

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
MODEL = "model"

_OF_ANOTHER_VERSION = (
    f"it was written by another version than {deepprism_jax.__version__}"
)
_LOCK = ".lock"
_PART = f".{CONFIG}."
"""How the name of a config begins that is being written."""

MAY_CHANGE = (
    "train.steps",
    "train.log_every",
    "train.eval_every",
    "train.eval_images",
    "train.save_every",
    "train.keep",
    "train.keep_best",
    "train.remat",
    "train.profile_steps",
    "train.step_timeout",
    "train.debug_nans",
    "autoencoder.path",
    "data.latents",
    "data.encode_batch",
    "mesh.data",
    "mesh.fsdp",
    "mesh.channel",
)
"""Fields that a resumed run may have otherwise: it is still the same run."""


def to_dict(config: Experiment) -> dict[str, Any]:
    """Return a config as JSON-able dictionaries."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(values: Mapping[str, Any], system: str = "autoencoder") -> Experiment:
    """Return the config that `to_dict` was given; fields it lacks take their defaults.

    Raises:
        ValueError: a field is unknown, or the system is.
    """
    if system not in CONFIGS:
        raise ValueError(f"unknown system {system!r}; {_OF_ANOTHER_VERSION}")
    return _make(CONFIGS[system], values, "")


def read_config(workdir: PathLike) -> Experiment:
    """Return the config of a work directory.

    Raises:
        FileNotFoundError: it is not one.
        ValueError: its `config.json` is damaged, or of another version.
    """
    path = as_path(workdir) / CONFIG
    with remote_errors(path):
        if not path.exists():
            raise FileNotFoundError(
                f"{workdir} is no work directory: it has no {CONFIG}"
            )
        text = path.read_text()
    try:
        record = json.loads(text)
        # What the first versions wrote is of the one system that there was.
        return from_dict(record["config"], record.get("system", "autoencoder"))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no config of a run: {error}") from None


def differences(there: Experiment, here: Experiment) -> dict[str, tuple[Any, Any]]:
    """Return dotted name to both values, for all fields that differ."""
    old, new = flatten_names(to_dict(there)), flatten_names(to_dict(here))
    return {name: (old[name], new[name]) for name in new if old[name] != new[name]}


def check_workdir(workdir: PathLike, config: Experiment, *, resume: bool) -> None:
    """Refuse a directory that this run must not write to; nothing is written here.

    Raises:
        PreflightError: it is in use by another config or by something else, holds a
            checkpoint and `resume` is not asked for, or holds none and it is; or it is
            in a bucket that cannot be reached.
    """
    with refusing():
        check_reachable(workdir)
        workdir = as_path(workdir)
    if workdir.exists() and not workdir.is_dir():
        raise PreflightError(f"--workdir {workdir} is a file; choose a directory")
    # Where several processes start one run, this one may find the first at its claim.
    claimed = (_LOCK, _PART, compilation.FOLDER)
    if not workdir.is_dir() or all(
        path.name.startswith(claimed) for path in workdir.iterdir()
    ):
        if resume:
            raise PreflightError(
                f"--resume: {workdir} has no run in it; leave out --resume to start one"
            )
        return
    try:
        there = read_config(workdir)
    except FileNotFoundError:
        raise PreflightError(
            f"{workdir} holds files that are not of a run (no {CONFIG}); choose "
            "another --workdir"
        ) from None
    except ValueError as error:
        raise PreflightError(f"{error}; choose another --workdir") from None
    if type(there) is not type(config):
        raise PreflightError(
            f"{workdir} is a run of {name_of(there)}, and this is one of "
            f"{name_of(config)}; choose another --workdir"
        )
    changes = differences(there, config)
    for name in MAY_CHANGE:
        changes.pop(name, None)
    if changes:
        what = ", ".join(
            f"{k} is {a!r} there, {b!r} here" for k, (a, b) in changes.items()
        )
        raise PreflightError(
            f"{workdir} is in use by another config: {what}; choose another --workdir"
        )
    done = steps(workdir / CHECKPOINTS)
    if done and not resume:
        raise PreflightError(
            f"{workdir} holds a checkpoint of step {done[-1]}; add --resume to go on "
            "from it, or choose another --workdir"
        )
    if resume and not done:
        raise PreflightError(
            f"--resume: {workdir} has no checkpoint; leave out --resume to start anew"
        )
    if done and config.train.steps < done[-1]:
        raise PreflightError(
            f"train.steps={config.train.steps} is below step {done[-1]} of the "
            f"checkpoint in {workdir}; choose at least that"
        )


@contextlib.contextmanager
def claim(workdir: PathLike, config: Experiment, *, resume: bool) -> Iterator[None]:
    """Make the directory, write the config, and keep other runs out until the end.

    Raises:
        PreflightError: see `check_workdir`; or another run is writing to it, or this
            one may not.
    """
    check_workdir(workdir, config, resume=resume)
    workdir = as_path(workdir)
    with contextlib.ExitStack() as stack:
        if isinstance(workdir, Path):
            with refusing():
                workdir.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context((workdir / _LOCK).open("w"))
            _exclude_others(lock, workdir)
            check_workdir(workdir, config, resume=resume)
        record = {
            "deepprism_jax": deepprism_jax.__version__,
            "system": name_of(config),
            "config": to_dict(config),
        }
        with refusing():
            write_whole(workdir / CONFIG, json.dumps(record, indent=2) + "\n")
        yield


def notes_on_changes(there: Experiment, here: Experiment) -> list[str]:
    """Return one line for each allowed change, with what it does to schedules."""
    lines = []
    for name, (old, new) in differences(there, here).items():
        line = f"{name} was {old} and is {new} from now on"
        if name == "train.steps":
            line += f"; {_effect_of_steps(here)}"
        lines.append(line)
    return lines


def _effect_of_steps(config: Experiment) -> str:
    """Say which schedules are laid out over the whole run."""
    spanned = []
    if config.optimizer.schedule != "constant":
        spanned.append(f"the {config.optimizer.schedule} learning rate")
    spanned += system_of(config).spanned(config)
    if not spanned:
        return "no schedule depends on it"
    return f"{', '.join(spanned)} now span {config.train.steps} steps and jump here"


def _make(cls: Any, values: Mapping[str, Any], prefix: str) -> Any:
    hints = get_type_hints(cls)
    known = {}
    for name, value in values.items():
        if name not in hints:
            raise ValueError(f"unknown field {prefix}{name}; {_OF_ANOTHER_VERSION}")
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            value = _make(hint, value, f"{prefix}{name}.")
        elif get_origin(hint) is tuple:
            value = tuple(value)
        known[name] = value
    return cls(**known)


def _exclude_others(lock: Any, workdir: Path) -> None:
    """Lock the file until it is closed, where the platform can."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PreflightError(
            f"{workdir} is being written to by another run; wait for its end or choose "
            "another --workdir"
        ) from None
    except OSError:  # a file system without locks
        return
    print(os.getpid(), file=lock, flush=True)
