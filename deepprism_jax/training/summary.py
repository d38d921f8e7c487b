"""What a run is, in lines of words: devices, networks, learning rate, batch, memory."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from deepprism_jax.analysis import count_layers
from deepprism_jax.ops.native import library
from deepprism_jax.training.allocator import HINT, allocator
from deepprism_jax.training.optimizer import peak_learning_rate
from deepprism_jax.training.preflight import plural
from deepprism_jax.training.setup import Data
from deepprism_jax.training.systems import Experiment, system_of
from deepprism_jax.training.trainer import Trainer


def run_lines(config: Experiment, data: Data) -> list[str]:
    """Return what is said when a run begins, one line each."""
    return [
        devices_line(config),
        *malloc_lines(),
        mesh_line(config),
        parameters_line(config),
        *norm_lines(config),
        learning_rate_line(config),
        system_of(config).batch_line(config),
        system_of(config).data_line(config, data),
    ]


def devices_line(config: Experiment) -> str:
    """Say which devices share the work, and on CPUs whether by compiled kernels."""
    devices, processes = jax.devices(), jax.process_count()
    kind = f"{devices[0].platform} ({devices[0].device_kind})"
    line = (
        f"devices: {len(devices)} x {kind} in {processes} "
        f"{plural(processes, 'process')}"
    )
    if devices[0].platform != "cpu":
        return line
    if library.loaded():
        return f"{line}, with C++ kernels{_but_for(config)}"
    return f"{line}, without C++ kernels; `{library.BUILD}` builds them, for speed"


def malloc_lines() -> list[str]:
    """Say on CPUs which malloc there is: it gives a step its memory."""
    used = allocator()
    if used is None or jax.default_backend() != "cpu":
        return []
    return [f"malloc: {used}" + (f"; {HINT}" if used == "glibc" else "")]


def _but_for(config: Experiment) -> str:
    """Say that the kernels do not fit a model's channel convolutions, if so."""
    model, devices = config.model, config.mesh.channel
    if model.conv not in ("deepprism", "prism_separable", "channel"):
        return ""
    fields = model.fields if model.conv == "deepprism" else 1
    depth = model.width // fields // devices
    if library.takes(depth, jnp.float32) or fields == model.width:
        return ""
    parts = "model.width / model.fields" + (" / mesh.channel" if devices > 1 else "")
    return (
        f", but not for channel convolutions: {parts} = {depth} is no multiple of "
        f"{library.LANES}, so they take slower forms"
    )


def parameters_line(config: Experiment) -> str:
    """Say how many parameters each network has."""
    totals: dict[str, int] = {}
    for count in count_layers(system_of(config).networks(config)):
        totals[count.network] = totals.get(count.network, 0) + count.parameters
    parts = ", ".join(f"{network} {total:,}" for network, total in totals.items())
    return f"parameters: {parts}"


def norm_lines(config: Experiment) -> list[str]:
    """Say where every channel is a norm group of its own, which costs quality."""
    model = config.model
    groups = getattr(model, "norm_groups", 0)
    if groups < model.width or model.width < 4:
        return []
    fewer = max(n for n in range(1, model.width // 4 + 1) if model.width % n == 0)
    return [
        f"norm groups: {groups} for {model.width} channels normalise each by itself, "
        f"and its mean is lost; --model.norm-groups {fewer} keeps it"
    ]


def learning_rate_line(config: Experiment) -> str:
    """Say the effective learning rate and how it came about."""
    optimizer, batch = config.optimizer, config.train.batch_size
    rate = f"{peak_learning_rate(optimizer, batch):.4g}"
    if optimizer.scale_by_batch:
        rule = f"base {optimizer.learning_rate:.4g} x batch {batch}"
    else:
        rule = "as given, not scaled by the batch"
    line = f"learning rate: {rate} ({rule}), {optimizer.name}"
    if optimizer.warmup_steps:
        line += f", {optimizer.warmup_steps} warm-up steps"
    if optimizer.schedule == "constant":
        return (
            f"{line}, then constant" if optimizer.warmup_steps else f"{line}, constant"
        )
    if optimizer.schedule == "milestones":
        return f"{line}, halved at {len(optimizer.milestones)} milestones"
    return f"{line}, {optimizer.schedule} to {optimizer.final_ratio:g} of it"


def mesh_line(config: Experiment) -> str:
    """Say how the devices are arranged."""
    shape = system_of(config).mesh_shape(config, jax.device_count())
    axes = " x ".join(f"{axis} {size}" for axis, size in shape.items())
    remat = config.train.remat
    return f"mesh: {axes}" + ("" if remat == "none" else f", recomputing {remat}")


def memory_lines(trainer: Trainer) -> Iterator[str]:
    """Say what a step needs on each device: counted, then as the compiler plans it."""
    stored = jax.tree.map(
        lambda x, where: x.update(shape=where.shard_shape(x.shape)),
        trainer.state_shapes,
        trainer.state_sharding,
    )
    yield f"memory: the training state takes {_bytes(stored)} on each device (counted)"
    plan = trainer.lower_step().compile().memory_analysis()
    if plan is None:
        yield "memory: this platform's compiler does not say what a step needs"
        return
    peak = (
        plan.argument_size_in_bytes
        + plan.output_size_in_bytes
        - plan.alias_size_in_bytes
        + plan.temp_size_in_bytes
    )
    yield (
        f"memory: a step takes {_size(peak)} on each device, of which "
        f"{_size(plan.temp_size_in_bytes)} for activations and gradients (compiled for "
        f"{jax.default_backend()})"
    )


def _bytes(tree: Any) -> str:
    return _size(sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)))


def _size(number: int | float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
