"""What is checked before any work; a problem is one line: the value and the remedy."""

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from deepprism_jax.training.config import OptimizerConfig, TrainConfig
from deepprism_jax.training.sharding import mesh_sizes


class PreflightError(Exception):
    """The run is refused before any work; `problems` are one line each."""

    def __init__(self, *problems: str):
        super().__init__("; ".join(problems))
        self.problems = problems


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Turn what the library says about impossible values or files into a refusal."""
    try:
        yield
    except (ValueError, OSError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise PreflightError(lines[0]) from error


@contextlib.contextmanager
def naming_options(config: Any, group: str) -> Iterator[None]:
    """Name values in a ValueError by their options, `--model.rank=9` for `rank=9`."""
    try:
        yield
    except ValueError as error:
        fields = [field.name for field in dataclasses.fields(getattr(config, group))]
        named = re.sub(
            rf"(?<![\w.-])({'|'.join(fields)})=",
            lambda match: f"--{group}.{match[1].replace('_', '-')}=",
            str(error),
        )
        raise ValueError(named) from error


def common_problems(config: Any, least: Mapping[str, int]) -> Iterator[str]:
    """Check what every experiment has: numbers, optimizer, profile, moving average.

    Args:
        config: the experiment.
        least: the least values of further fields, by their dotted names.
    """
    yield from _at_least(config, {**least, **_LEAST})
    yield from _optimizer(config.optimizer, config.train.steps)
    first, last = config.train.profile_steps
    yield from _profile(first, last, config.train.steps)
    if not 0 <= config.train.ema_decay < 1:
        yield f"train.ema_decay={config.train.ema_decay} must lie in [0, 1); 0 is off"


def as_steps(value: float, steps: int) -> int:
    """Return a number of steps that is given as such, or below 1 as a fraction."""
    return round(value * steps) if value < 1 else round(value)


_LEAST = {
    "optimizer.weight_decay": 0,
    "optimizer.clip_norm": 0,
    "optimizer.warmup_steps": 0,
    "optimizer.final_ratio": 0,
    "train.steps": 1,
    "train.batch_size": 1,
    "train.accumulation": 1,
    "train.seed": 0,
    "train.log_every": 1,
    "train.eval_every": 0,
    "train.eval_images": 0,
    "train.save_every": 0,
    "train.keep": 1,
    "train.keep_best": 0,
    "train.step_timeout": 0,
}


def _at_least(config: Any, all_least: Mapping[str, int]) -> Iterator[str]:
    for name, least in all_least.items():
        group, field = name.split(".")
        value = getattr(getattr(config, group), field)
        if not value >= least or value == math.inf:
            yield f"{name}={value} must be a number from {least} up"


def _optimizer(optimizer: OptimizerConfig, steps: int) -> Iterator[str]:
    for field in ("learning_rate", "discriminator_ratio"):
        if not 0 < getattr(optimizer, field) < math.inf:
            value = getattr(optimizer, field)
            yield f"optimizer.{field}={value} must be a number above 0"
    for field in ("b1", "b2"):
        if not 0 <= getattr(optimizer, field) < 1:
            yield f"optimizer.{field}={getattr(optimizer, field)} must lie in [0, 1)"
    if optimizer.weight_decay > 0 and optimizer.name not in ("adamw", "lion", "soap"):
        yield (
            f"optimizer.weight_decay={optimizer.weight_decay} is of no effect with "
            f"optimizer.name={optimizer.name}: choose adamw, lion or soap"
        )
    for share in optimizer.milestones:
        if not 0 < share < 1:
            yield f"optimizer.milestones={share} must lie between 0 and 1, of all steps"
    if 0 < steps <= optimizer.warmup_steps:
        yield (
            f"optimizer.warmup_steps={optimizer.warmup_steps} must be below "
            f"train.steps={steps}"
        )


def _profile(first: int, last: int, steps: int) -> Iterator[str]:
    if (first, last) != (0, 0) and not 1 <= first <= last <= steps:
        yield (
            f"train.profile_steps={first} {last} must be a first and a last step, from "
            f"1 to train.steps={steps}; 0 0 is no profile"
        )


def batch_problems(config: Any, devices: int, processes: int) -> Iterator[str]:
    """Check that a batch can be cut over the mesh, and the mesh over the devices."""
    try:
        data, fsdp, _ = mesh_sizes(devices, **asdict(config.mesh))
    except ValueError as error:
        yield str(error)
        return
    yield from _batch(config.train, data * fsdp, devices, processes)


def _batch(
    train: TrainConfig, parts: int, devices: int, processes: int
) -> Iterator[str]:
    if min(train.batch_size, train.accumulation) < 1:
        return
    share = f"{devices} {plural(devices, 'device')}"
    if parts < devices:
        share = f"{parts} {plural(parts, 'part')} (mesh.data x mesh.fsdp)"
    pieces = parts * train.accumulation
    if train.batch_size % pieces:
        below = train.batch_size // pieces * pieces
        choice = f"{below} or {below + pieces}" if below else f"{pieces}"
        yield (
            f"train.batch_size={train.batch_size} must be divisible by {share} x "
            f"train.accumulation={train.accumulation} = {pieces}; choose {choice}"
        )
    elif parts == devices and train.batch_size % processes:
        yield (
            f"train.batch_size={train.batch_size} must be divisible by the {processes} "
            "processes"
        )


def width_problems(model: Any) -> Iterator[str]:
    """Check that norm groups and heads of a model's config share out its width."""
    for name, parts in (("norm_groups", model.norm_groups), ("heads", model.heads)):
        if parts >= 1 and model.width >= 1 and model.width % parts:
            yield (
                f"model.{name}={parts} must divide model.width={model.width}; choose "
                f"one of {divisors(model.width)}"
            )


def divisors(number: int) -> list[int]:
    """Return the divisors of a positive number, smallest first."""
    return [d for d in range(1, number + 1) if number % d == 0]


def plural(count: int, noun: str) -> str:
    """Return the noun as it is said of that many."""
    ending = "es" if noun.endswith("s") else "s"
    return noun if count == 1 else noun + ending
