"""What is checked before any work; a problem is one line: the value and the remedy."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from deepprism_jax.training.config import (
    Config,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)
from deepprism_jax.training.networks import LPIPS
from deepprism_jax.training.sharding import mesh_sizes
from deepprism_jax.weights import store
from deepprism_jax.weights.registry import COMMAND
from deepprism_jax.weights.torchvision import TORCHVISION_NAMES

_PERCEPTUAL_FILES = ("perceptual_weights", "perceptual_heads")


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


def check(config: Config, *, devices: int, processes: int = 1) -> None:
    """Check a config against itself and the devices.

    Args:
        config: the experiment.
        devices: devices over all processes.
        processes: processes of the run.

    Raises:
        PreflightError: with all problems that there are.
    """
    problems = [
        *_at_least(config),
        *_model(config.model, config.data.image_size),
        *_adversarial(config.loss, config.train.steps),
        *_optimizer(config.optimizer, config.train.steps),
        *_profile(*config.train.profile_steps, config.train.steps),
        *_devices(config, devices, processes),
    ]
    if problems:
        raise PreflightError(*problems)


def check_files(config: Config) -> None:
    """Check that the files are there that the config needs, apart from the data.

    Raises:
        PreflightError: with all that are missing.
    """
    if problems := list(_perceptual(config.loss)):
        raise PreflightError(*problems)


def as_steps(value: float, steps: int) -> int:
    """Return a number of steps that is given as such, or below 1 as a fraction."""
    return round(value * steps) if value < 1 else round(value)


_LEAST = {
    "model.width": 1,
    "model.fields": 1,
    "model.groups": 1,
    "model.rank": 1,
    "model.downsamples": 0,
    "model.blocks": 0,
    "model.z_channels": 1,
    "model.heads": 1,
    "model.norm_groups": 1,
    "model.codebook_size": 2,
    "loss.perceptual_weight": 0,
    "loss.kl_weight": 0,
    "loss.commitment_weight": 0,
    "loss.adversarial_weight": 0,
    "loss.adversarial_start": 0,
    "loss.adversarial_ramp": 0,
    "loss.discriminator_warmup": 0,
    "loss.r1_weight": 0,
    "loss.lecam_weight": 0,
    "discriminator.width": 1,
    "discriminator.layers": 0,
    "discriminator.fields": 1,
    "discriminator.groups": 1,
    "discriminator.rank": 1,
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


def _at_least(config: Config) -> Iterator[str]:
    for name, least in _LEAST.items():
        group, field = name.split(".")
        value = getattr(getattr(config, group), field)
        if not value >= least or value == math.inf:
            yield f"{name}={value} must be a number from {least} up"


def _model(model: ModelConfig, image_size: tuple[int, int]) -> Iterator[str]:
    for name, parts in (("norm_groups", model.norm_groups), ("heads", model.heads)):
        if parts >= 1 and model.width >= 1 and model.width % parts:
            yield (
                f"model.{name}={parts} must divide model.width={model.width}; choose "
                f"one of {divisors(model.width)}"
            )
    factor = 2**model.downsamples if model.downsamples >= 0 else 1
    if any(side < 1 or side % factor for side in image_size):
        near = tuple(max(1, round(side / factor)) * factor for side in image_size)
        yield (
            f"data.image_size={image_size} must be multiples of the factor {factor} "
            f"(2**model.downsamples); the nearest is {near}"
        )


def _perceptual(loss: LossConfig) -> Iterator[str]:
    if not loss.perceptual_weight > 0:
        return
    name = TORCHVISION_NAMES[loss.perceptual_net]
    if not loss.perceptual_weights and store.find(name) is None:
        yield (
            f"loss.perceptual_weight={loss.perceptual_weight} needs "
            f"loss.perceptual_weights, a file of {loss.perceptual_net} weights: run "
            f"{COMMAND} get {name}, give the path of one in torchvision's layout, or "
            "set --loss.perceptual-weight 0"
        )
    paths = {field: getattr(loss, field) for field in _PERCEPTUAL_FILES}
    if paths["perceptual_heads"] == LPIPS:
        del paths["perceptual_heads"]
        heads = f"lpips_{loss.perceptual_net}"
        if store.find(heads) is None:
            yield (
                f"loss.perceptual_heads={LPIPS} are not on this machine: run "
                f"{COMMAND} get {heads}, or give the path of a file"
            )
    for field, path in paths.items():
        if path and not Path(path).is_file():
            yield f"loss.{field}={path!r} is not a file; give the path of one"


def _adversarial(loss: LossConfig, steps: int) -> Iterator[str]:
    if not loss.adversarial_weight > 0:
        for field in ("r1_weight", "lecam_weight"):
            if getattr(loss, field) > 0:
                yield (
                    f"loss.{field}={getattr(loss, field)} regularises a discriminator, "
                    "and there is none: set --loss.adversarial-weight above 0"
                )
        return
    start = as_steps(loss.adversarial_start, steps)
    warmup = as_steps(loss.discriminator_warmup, steps)
    if start >= steps:
        yield (
            f"loss.adversarial_start={loss.adversarial_start} (step {start}) is never "
            f"reached in train.steps={steps}: start earlier, or set "
            "--loss.adversarial-weight 0"
        )
    if warmup > start:
        yield (
            f"loss.discriminator_warmup={loss.discriminator_warmup} ({warmup} steps) "
            f"does not fit before loss.adversarial_start={loss.adversarial_start} "
            f"(step {start}): start later or warm up for at most {start} steps"
        )


def _optimizer(optimizer: OptimizerConfig, steps: int) -> Iterator[str]:
    for field in ("learning_rate", "discriminator_ratio"):
        if not 0 < getattr(optimizer, field) < math.inf:
            value = getattr(optimizer, field)
            yield f"optimizer.{field}={value} must be a number above 0"
    for field in ("b1", "b2"):
        if not 0 <= getattr(optimizer, field) < 1:
            yield f"optimizer.{field}={getattr(optimizer, field)} must lie in [0, 1)"
    if optimizer.weight_decay > 0 and optimizer.name not in ("adamw", "lion"):
        yield (
            f"optimizer.weight_decay={optimizer.weight_decay} is of no effect with "
            f"optimizer.name={optimizer.name}: choose adamw or lion"
        )
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


def _devices(config: Config, devices: int, processes: int) -> Iterator[str]:
    train, mesh = config.train, config.mesh
    if not 0 <= train.ema_decay < 1:
        yield f"train.ema_decay={train.ema_decay} must lie in [0, 1); 0 is off"
    try:
        data, fsdp, channel = mesh_sizes(devices, **asdict(mesh))
    except ValueError as error:
        yield str(error)
        return
    yield from _batch(train, data * fsdp, devices, processes)
    if channel > 1:
        yield from _channels(config, channel)


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


_CUT_KINDS = ("deepprism", "prism_separable", "channel", "dense")


def _channels(config: Config, parts: int) -> Iterator[str]:
    """What cutting the channels of feature maps asks of the network."""
    model = config.model
    asked = f"mesh.channel={parts}"
    if model.conv not in _CUT_KINDS:
        yield (
            f"{asked} cannot cut model.conv={model.conv}; choose one of "
            f"{', '.join(_CUT_KINDS)}, or --mesh.channel 1"
        )
        return
    fields = model.fields if model.conv == "deepprism" else 1
    cut = fields * parts
    for name, number in (("width", model.width), ("norm_groups", model.norm_groups)):
        if number % cut:
            product = f"model.fields={fields} x {asked}" if fields > 1 else asked
            near = cut * max(round(number / cut), 1)
            yield (
                f"model.{name}={number} must be a multiple of {product}, {cut}; the "
                f"nearest is {near}"
            )
    height, width = (side // 2**model.downsamples for side in config.data.image_size)
    if model.attention and height * width % parts and model.heads % cut:
        yield (
            f"{asked} must divide the {height}x{width} positions of the latent, or set "
            "--model.no-attention"
        )


def divisors(number: int) -> list[int]:
    """Return the divisors of a positive number, smallest first."""
    return [d for d in range(1, number + 1) if number % d == 0]


def plural(count: int, noun: str) -> str:
    """Return the noun as it is said of that many."""
    ending = "es" if noun.endswith("s") else "s"
    return noun if count == 1 else noun + ending
