"""What a run is, in lines of words: devices, networks, learning rate, batch, memory."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import jax
from flax import nnx

from deepprism_jax.analysis import count_layers
from deepprism_jax.layers.functional import Functional
from deepprism_jax.models.feature_networks import feature_network
from deepprism_jax.ops.native import library
from deepprism_jax.training.config import Config
from deepprism_jax.training.networks import make_autoencoder, make_discriminator
from deepprism_jax.training.optimizer import peak_learning_rate
from deepprism_jax.training.preflight import plural, refusing
from deepprism_jax.training.setup import Data
from deepprism_jax.training.sharding import AXES, mesh_sizes
from deepprism_jax.training.trainer import Trainer


def run_lines(config: Config, data: Data) -> list[str]:
    """Return what is said when a run begins, one line each."""
    return [
        devices_line(),
        mesh_line(config),
        parameters_line(config),
        learning_rate_line(config),
        batch_line(config),
        data_line(config, data),
    ]


def devices_line() -> str:
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
        return f"{line}, with C++ kernels"
    return f"{line}, without C++ kernels; `{library.BUILD}` builds them, for speed"


def networks(config: Config) -> dict[str, Any]:
    """Return the shapes of all that a run trains or keeps, by network and name.

    Raises:
        PreflightError: the config's networks cannot be made.
    """
    makers: dict[str, Any] = {"autoencoder": make_autoencoder}
    if config.loss.adversarial_weight > 0:
        makers["discriminator"] = make_discriminator
    found: dict[str, Any] = {}
    for name, make in makers.items():
        with refusing():
            module = nnx.eval_shape(lambda make=make: make(config, nnx.Rngs(0)))
        found[name] = Functional(module).shapes
    loss = config.loss
    if loss.perceptual_weight > 0 and not loss.perceptual_heads:
        layers = len(feature_network(loss.perceptual_net).channels)
        shape = jax.ShapeDtypeStruct((layers,), "float32")
        found["perceptual"] = {"layer_weights": shape}
    return found


def parameters_line(config: Config) -> str:
    """Say how many parameters each network has."""
    totals: dict[str, int] = {}
    for count in count_layers(networks(config)):
        totals[count.network] = totals.get(count.network, 0) + count.parameters
    parts = ", ".join(f"{network} {total:,}" for network, total in totals.items())
    return f"parameters: {parts}"


def learning_rate_line(config: Config) -> str:
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
    return f"{line}, {optimizer.schedule} to {optimizer.final_ratio:g} of it"


def mesh_line(config: Config) -> str:
    """Say how the devices are arranged."""
    sizes = mesh_sizes(jax.device_count(), **asdict(config.mesh))
    axes = " x ".join(f"{axis} {size}" for axis, size in zip(AXES, sizes, strict=True))
    remat = config.train.remat
    return f"mesh: {axes}" + ("" if remat == "none" else f", recomputing {remat}")


def batch_line(config: Config) -> str:
    """Say how a batch is cut over devices and accumulation."""
    train, devices = config.train, jax.device_count()
    data, fsdp, channel = mesh_sizes(devices, **asdict(config.mesh))
    parts = data * fsdp
    share = f"{devices} {plural(devices, 'device')}"
    if channel > 1:
        share = f"{parts} {plural(parts, 'part')} of {channel} devices"
    each = train.batch_size // (parts * train.accumulation)
    return (
        f"batch: {train.batch_size} images = {share} x "
        f"{train.accumulation} accumulation {plural(train.accumulation, 'step')} "
        f"x {each} images"
    )


def data_line(config: Config, data: Data) -> str:
    """Say which images there are."""
    height, width = config.data.image_size
    return (
        f"data: {config.data.source}, {data.train_images:,} images to train on and "
        f"{data.held_out_images:,} to evaluate on, at {height}x{width}"
    )


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
