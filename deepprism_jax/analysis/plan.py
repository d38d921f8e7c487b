"""The training step of a config, compiled for devices that are not there.

What the compiler says of the program is exact: whether it fits, what it takes of the
memory, what devices send each other. Nothing is run: of time there are the compiler's
estimates (`plan_time`), and no more.
"""

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax

from deepprism_jax.analysis.chips import SPEEDS
from deepprism_jax.analysis.plan_program import (
    Collective,
    Memory,
    collectives,
    exceeded,
    memory,
    operations,
)
from deepprism_jax.analysis.plan_time import estimated_work
from deepprism_jax.analysis.plan_topology import Slice, described_devices
from deepprism_jax.ops.target import compiling_for
from deepprism_jax.training.preflight import refusing
from deepprism_jax.training.sharding import batch_parts
from deepprism_jax.training.systems import Experiment, check, system_of


@dataclass(frozen=True)
class Plan:
    """A training step on a slice. Bytes and operations are those of one device."""

    topology: str
    devices: int
    hosts: int
    mesh: dict[str, int]
    """Devices along each axis."""
    parts: int
    """Parts of every batch: devices that share an image's channels work on the same."""
    remat: str
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
    estimate: float | None
    """Seconds that a step takes at least, by the compiler's estimates (`plan_time`)."""
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
        """Images a step on each device, or on those that share their channels."""
        return self.batch_size // self.parts

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


def make_plan(config: Experiment, slice_: Slice) -> Plan:
    """Compile the training step of a config for a slice; minutes, on one core.

    Weights of a perceptual network need not be there: their shapes suffice.

    Raises:
        PreflightError: the config contradicts itself or the slice, or there is no
            compiler for its devices.
    """
    check(config, devices=slice_.devices)
    with refusing():
        devices = described_devices(slice_)
    began = time.perf_counter()
    # Networks, too, look at what they are traced for.
    with compiling_for(slice_.platform):
        with refusing():
            trainer = system_of(config).planned_trainer(config, devices)
        lowered = trainer.lower_step()
    mesh = trainer.mesh
    trained = jax.tree.leaves(trainer.state_shapes.params)
    plan = Plan(
        topology=slice_.name,
        devices=len(devices),
        hosts=len({device.process_index for device in devices}),
        mesh=dict(mesh.shape),
        parts=batch_parts(mesh),
        remat=config.train.remat,
        batch_size=config.train.batch_size,
        accumulation=config.train.accumulation,
        parameter_bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in trained),
        available=slice_.memory,
        needed=0,
        memory=None,
        collectives=(),
        operations=None,
        kernels=0,
        estimate=None,
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
    work, speed = estimated_work(program), SPEEDS.get(slice_.chip)
    return replace(
        plan,
        needed=parts.peak,
        memory=parts,
        collectives=tuple(collectives(program)),
        operations=operations(compiled),
        kernels=program.count('custom_call_target="tpu_custom_call"'),
        estimate=work.seconds(speed) if work and speed else None,
        seconds=time.perf_counter() - began,
    )
