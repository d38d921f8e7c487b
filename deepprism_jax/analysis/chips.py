"""What is published of the chips that a program may run on."""

from typing import NamedTuple

PEAKS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}
"""Operations a second of a device in bfloat16, by its `device_kind`.

TPUs: the page of each version in Cloud TPU's documentation ("peak compute per chip");
v5e is called "TPU v5 lite" there and v5p "TPU v5". GPUs: NVIDIA's data sheets of the
SXM modules, tensor cores without sparsity; an A100 has as many on a card.
"""


def peak_operations(device_kind: str) -> float | None:
    """Return the operations a second of a kind of device in bfloat16, None if unknown.

    >>> peak_operations("TPU v5 lite")
    197000000000000.0
    >>> peak_operations("cpu") is None
    True
    """
    # What follows a GPU's name is how it is built in, and its memory.
    name = "NVIDIA A100" if device_kind.startswith("NVIDIA A100") else device_kind
    return PEAKS.get(name)


class Speed(NamedTuple):
    """Speeds of a chip."""

    clock: float
    """Cycles a second."""
    bandwidth: float
    """Bytes a second of its memory."""


SPEEDS = {
    "v4": Speed(1.05e9, 1228e9),
    "v5e": Speed(1.5e9, 819e9),
    "v5p": Speed(1.75e9, 2765e9),
    "v6e": Speed(1.75e9, 1640e9),
}
"""TPUs by their names in a topology.

The memory's is from Cloud TPU's documentation of each version. The clock is not
published of all: it is what the peak gives, divided by the operations of the matrix
units in a cycle (four of 128 x 128 in each core, of 256 x 256 in v6e).
"""
