"""The training step of a config, compiled for devices that are not there.

What the compiler says of the program is exact: whether it fits, what it takes of the
memory, what devices send each other. Nothing is run, so nothing is said of time.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax

from deepprism_jax.analysis.plan_program import (
    Collective,
    Memory,
    collectives,
    exceeded,
    memory,
    operations,
)
from deepprism_jax.analysis.plan_topology import Slice, described_devices
from deepprism_jax.ops.target import compiling_for
from deepprism_jax.training.config import Config
from deepprism_jax.training.preflight import check, check_files, plural, refusing
from deepprism_jax.training.setup import check_images
from deepprism_jax.training.sharding import make_mesh
from deepprism_jax.training.trainer import Trainer

MOST_DOUBLINGS = 4
"""How often a sweep doubles or halves the batch."""


@dataclass(frozen=True)
class Plan:
    """A training step on a slice. Bytes and operations are those of one device."""

    topology: str
    devices: int
    hosts: int
    batch_size: int
    """Images a step, over all devices."""
    accumulation: int
    parameter_bytes: int
    """All that is trained, in float32: the size of the gradients."""
    available: int
    """Bytes of memory that a program may take."""
    needed: int
    """Bytes of memory that this one takes."""
    memory: Memory | None
    """By kind; None where the compiler made no program, as too large."""
    collectives: tuple[Collective, ...]
    operations: float | None
    kernels: int
    """Pallas kernels in the program."""
    seconds: float
    """What lowering and compiling took here."""

    @property
    def fits(self) -> bool:
        """Whether the memory suffices.

        The compiler for TPUs makes no program where it does not; that for GPUs does.
        """
        return self.memory is not None and self.needed <= self.available

    @property
    def device_batch(self) -> int:
        """Images a step on each device."""
        return self.batch_size // self.devices

    @property
    def micro_batch(self) -> int:
        """Images that a device works on at once."""
        return self.device_batch // self.accumulation

    def facts(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        collectives_ = [collective._asdict() for collective in self.collectives]
        return {
            **asdict(self),
            "fits": self.fits,
            "device_batch": self.device_batch,
            "micro_batch": self.micro_batch,
            "memory": self.memory and self.memory._asdict(),
            "collectives": collectives_,
        }


def make_plan(config: Config, slice_: Slice) -> Plan:
    """Compile the training step of a config for a slice; minutes, on one core.

    Raises:
        PreflightError: the config contradicts itself, the slice or the files, or there
            is no compiler for its devices.
    """
    check(config, devices=slice_.devices)
    check_files(config)
    with refusing():
        devices = described_devices(slice_)
    began = time.perf_counter()
    # Networks, too, look at what they are traced for.
    with compiling_for(slice_.platform):
        with refusing():
            trainer = Trainer(config, make_mesh(devices))
            check_images(trainer)
        lowered = trainer.lower_step()
    trained = jax.tree.leaves(trainer.state_shapes.params)
    plan = Plan(
        topology=slice_.name,
        devices=len(devices),
        hosts=len({device.process_index for device in devices}),
        batch_size=config.train.batch_size,
        accumulation=config.train.accumulation,
        parameter_bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in trained),
        available=slice_.memory,
        needed=0,
        memory=None,
        collectives=(),
        operations=None,
        kernels=0,
        seconds=0.0,
    )
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        found = exceeded(str(error))
        if found is None:
            raise
        needed, available = found
        seconds = time.perf_counter() - began
        return replace(plan, needed=needed, available=available, seconds=seconds)
    program, parts = compiled.as_text() or "", memory(compiled)
    return replace(
        plan,
        needed=parts.peak,
        memory=parts,
        collectives=tuple(collectives(program)),
        operations=operations(compiled),
        kernels=program.count('custom_call_target="tpu_custom_call"'),
        seconds=time.perf_counter() - began,
    )


def sweep(config: Config, slice_: Slice) -> Iterator[Plan]:
    """Plans of the config's batch and of others, as each is compiled.

    Doubles the batch while it fits, or halves it until it does, `MOST_DOUBLINGS` times
    at most; the number of micro-batches stays.

    Raises:
        PreflightError: see `make_plan`.
    """
    plan = make_plan(config, slice_)
    yield plan
    grows = plan.fits
    for _ in range(MOST_DOUBLINGS):
        size = plan.batch_size * 2 if grows else plan.batch_size // 2
        if plan.fits != grows or size % (plan.devices * plan.accumulation):
            return
        train = replace(config.train, batch_size=size)
        plan = make_plan(replace(config, train=train), slice_)
        yield plan


def advice(plans: list[Plan]) -> str:
    """Say which batch to take, of those that were compiled."""
    fitting = [plan for plan in plans if plan.fits]
    if not fitting:
        tried = ", ".join(str(plan.batch_size) for plan in plans)
        return (
            f"advice: no batch of those tried fits ({tried}): take more micro-batches "
            "(--train.accumulation), a narrower model, or a larger chip"
        )
    best = max(fitting, key=lambda plan: plan.batch_size)
    above = [plan for plan in plans if plan.batch_size > best.batch_size]
    words = (
        f"advice: --train.batch-size {best.batch_size} fits, {best.micro_batch} "
        f"{plural(best.micro_batch, 'image')} at once on a device"
    )
    if above:
        return f"{words}; {above[0].batch_size} does not"
    used = best.needed / best.available
    return f"{words}, and takes {used:.1%} of its memory; larger ones were not tried"
