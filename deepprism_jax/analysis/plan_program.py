"""What a compiled program says of itself: memory, and what devices send each other."""

import math
import re
from typing import Any, NamedTuple

_KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
    "collective-broadcast",
)
# An asynchronous one is written in two lines: the result is that of the second.
_COLLECTIVE = re.compile(rf" = (.*?) ({'|'.join(_KINDS)})(?:-done)?\((.*)")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = r"([\d.]+)([KMGT]?)B?"
_EXCEEDED = (
    re.compile(rf"Used {_SIZE} of {_SIZE} hbm"),
    re.compile(rf"temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)"),
)


class Collective(NamedTuple):
    """The collectives of one kind in a program."""

    kind: str
    count: int
    """How often it is written; one in a loop is counted once."""
    bytes: int
    """Size of their results on one device."""


class Memory(NamedTuple):
    """Bytes of one device's memory that a program takes."""

    arguments: int
    outputs: int
    """Those that do not take the place of arguments."""
    temporaries: int
    code: int

    @property
    def peak(self) -> int:
        """The sum: all of it is there at once."""
        return sum(self)


def collectives(program: str) -> list[Collective]:
    """Count the collectives in the text of a compiled program, the largest first."""
    found: dict[str, list[int]] = {}
    seen = set()
    for types, kind, rest in _COLLECTIVE.findall(program):
        # One that goes on beside other work is written in each piece of that work, all
        # of them of one chain. Its channel says nothing: there is one for all.
        if chain := re.search(r'\bchain_id="(\d+)"', rest):
            if (kind, chain[1]) in seen:
                continue
            seen.add((kind, chain[1]))
        found.setdefault(kind, []).append(array_bytes(types))
    counted = (Collective(kind, len(s), sum(s)) for kind, s in found.items())
    return sorted(counted, key=lambda collective: -collective.bytes)


def array_bytes(types: str) -> int:
    """Size of what a type in the text of a program stands for, a tuple's parts summed.

    >>> array_bytes("(f32[27,2]{1,0:T(2,128)}, bf16[])")
    218
    """
    return sum(
        math.prod(int(side) for side in shape.split(",") if side) * _itemsize(name)
        for name, shape in _ARRAY.findall(types)
    )


def _itemsize(name: str) -> int:
    if name == "pred":
        return 1
    bits = re.search(r"\d+", name)
    return max(int(bits[0]) // 8, 1) if bits else 1


def memory(compiled: Any) -> Memory:
    """Read the plan of memory of a compiled program (`jax.stages.Compiled`)."""
    plan = compiled.memory_analysis()
    return Memory(
        arguments=plan.argument_size_in_bytes,
        outputs=plan.output_size_in_bytes - plan.alias_size_in_bytes,
        temporaries=plan.temp_size_in_bytes,
        code=plan.generated_code_size_in_bytes,
    )


def exceeded(message: str) -> tuple[int, int] | None:
    """Bytes needed and there, as the compiler says that a program does not fit.

    None where the message says something else.
    """
    for pattern in _EXCEEDED:
        if match := pattern.search(message):
            needed, needed_unit, there, there_unit = match.groups()
            return (
                round(float(needed) * _UNITS[needed_unit]),
                round(float(there) * _UNITS[there_unit]),
            )
    return None


def operations(compiled: Any) -> float | None:
    """Operations of one device, as XLA counts them; None where it does not.

    Of a kernel of ours it counts what the kernel declares.
    """
    return (compiled.cost_analysis() or {}).get("flops")
