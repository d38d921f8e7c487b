"""Slices of TPUs, and GPUs, by name: described to their compiler, none is needed.

`v5e:4x4` is a chip and the sides of its slice, in chips. Cloud TPU's own names count
otherwise: v5e-16 is v5e:4x4, but v4-32 and v5p-32 count cores, two a chip, and are
v4:2x2x4 and v5p:2x2x4. `cuda:h100:8` is eight GPUs.
"""

import importlib.util
import math
import os
import re
from typing import Any, NamedTuple

from deepprism_jax.analysis import plan_gpu

_GIB = 2**30
# There is no TPU to be looked for, nor a log to be kept.
_QUIET = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_LOG_DIR": "disabled",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}


class Chip(NamedTuple):
    """What is known of a kind of chip."""

    memory: int
    """Bytes that a program may take of a device's memory."""
    sides: int
    """Sides of a slice: 2 or 3."""
    options: dict[str, Any]
    """How the compiler is told of it."""


# The memory is what libtpu 0.0.42.1 names when it refuses a program of 200 GiB
# ("exceeds available HBM (15.75G)"), a little less than the chip has: 32, 16, 95 and
# 32 GB by Cloud TPU's documentation of each.
CHIPS: dict[str, Chip] = {
    # Its two cores are one device, as JAX has it on the real chip.
    "v4": Chip(int(30.75 * _GIB), 3, {"chip_config_name": "megacore"}),
    "v5e": Chip(int(15.75 * _GIB), 2, {}),
    "v5p": Chip(int(95.74 * _GIB), 3, {}),
    "v6e": Chip(int(31.25 * _GIB), 2, {}),
}
_EXAMPLES = {"v4": "v4:2x2x4", "v5e": "v5e:4x4", "v5p": "v5p:4x4x4", "v6e": "v6e:8x8"}


# What JAX takes of a GPU's memory unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
_GPU_FRACTION = 0.75
_KNOWN = ", ".join([*CHIPS, *(f"cuda:{chip}" for chip in plan_gpu.CHIPS)])


class Slice(NamedTuple):
    """Devices to compile for: a slice of TPUs, or GPUs side by side."""

    name: str
    platform: str
    """That of `ops.target`: "tpu" or "gpu"."""
    chip: str
    sides: tuple[int, ...]
    """Chips along each side."""

    @property
    def devices(self) -> int:
        """Number of devices, which is that of chips."""
        return math.prod(self.sides)

    @property
    def memory(self) -> int:
        """Bytes that a program may take on each device."""
        if self.platform == "gpu":
            return int(plan_gpu.MEMORY * _GPU_FRACTION)
        return CHIPS[self.chip].memory


def parse_slice(name: str) -> Slice:
    """Read the name of a slice, such as `v5e:4x4`, `v4:2x2x4` or `cuda:h100:8`.

    Raises:
        ValueError: there is no such chip, or it makes no such slice.
    """
    if name.startswith("cuda:"):
        return _parse_gpus(name)
    chip, _, shape = name.partition(":")
    if chip not in CHIPS:
        raise ValueError(
            f"unknown topology {name!r}: chips are {_KNOWN}, with the sides of the "
            f"slice after a colon, as in {_EXAMPLES['v5e']}"
        )
    wanted = CHIPS[chip].sides
    good = re.fullmatch(r"\d+(x\d+)*", shape)
    sides = tuple(map(int, shape.split("x"))) if good else ()
    if len(sides) != wanted or 0 in sides:
        raise ValueError(
            f"unknown topology {name!r}: a slice of {chip} has {wanted} sides, as in "
            f"{_EXAMPLES[chip]}"
        )
    if math.prod(sides) > 1 and any(side % 2 for side in sides[:2]):
        raise ValueError(
            f"unknown topology {name!r}: a host has 2x2 chips, so the first two sides "
            f"must be even, as in {_EXAMPLES[chip]}"
        )
    return Slice(name, "tpu", chip, sides)


def _parse_gpus(name: str) -> Slice:
    match = re.fullmatch(r"cuda:(\w+):(\d+)", name)
    if match is None or match[1] not in plan_gpu.CHIPS:
        raise ValueError(
            f"unknown topology {name!r}: GPUs are {', '.join(plan_gpu.CHIPS)}, with "
            "their number after a colon, as in cuda:h100:8"
        )
    count = int(match[2])
    if not 1 <= count <= plan_gpu.HOST and (not count or count % plan_gpu.HOST):
        raise ValueError(
            f"unknown topology {name!r}: GPUs are 1 to {plan_gpu.HOST}, or whole hosts "
            f"of {plan_gpu.HOST}"
        )
    return Slice(name, "gpu", match[1], (count,))


def check_compiler(platform: str) -> None:
    """Check that the compiler for "tpu" or "gpu" is installed.

    Raises:
        ValueError: it is not; says how to install it.
    """
    if platform == "gpu":
        if importlib.util.find_spec("jax_cuda12_plugin") is None:
            raise ValueError(plan_gpu.MISSING)
    elif importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            "there is no compiler for TPUs (libtpu) in this environment: "
            "pip install -e '.[tpu]' brings it; a TPU is not needed"
        )


def described_devices(slice_: Slice) -> list[Any]:
    """Devices of a slice that is not there: to compile for, not to run on.

    Raises:
        ValueError: there is no compiler for them, or it knows no such slice.
    """
    check_compiler(slice_.platform)
    if slice_.platform == "gpu":
        return plan_gpu.described_gpus(slice_.chip, slice_.devices)
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    from jax.experimental import topologies

    options = dict(CHIPS[slice_.chip].options)
    if slice_.devices == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        described = topologies.get_topology_desc(
            platform="tpu", topology_name=slice_.name, **options
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"topology {slice_.name!r} is refused: {reason}") from error
    return list(described.devices)
