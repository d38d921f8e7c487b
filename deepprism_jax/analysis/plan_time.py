"""How long a compiled program would take, by the TPU compiler's own estimates.

The compiler notes cycles beside the operations that it makes itself. Nothing has been
compared with a chip: figures of two programs on one chip are to be compared with each
other. Left out are collectives, and waits for copies that go on beside other work.
Kernels in Pallas have no cycles; each counts as what it reads and writes at the full
speed of the memory, which it takes at least.
"""

import re
from typing import NamedTuple

from deepprism_jax.analysis.chips import Speed

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_KERNEL = re.compile(r'"tpu_custom_call".*"bytes_accessed":"(\d+)"')
_LOOP = re.compile(r" while\(.*condition=%?([\w.-]+), body=%?([\w.-]+)")
_BRANCHES = re.compile(r" conditional\(.*branch_computations=\{([^}]*)\}")
_TWO_BRANCHES = re.compile(
    r" conditional\(.*true_computation=%?([\w.-]+), false_computation=%?([\w.-]+)"
)
_CALL = re.compile(r" call\(.*to_apply=%?([\w.-]+)")
_BELOW = re.compile(r"compare\(%?[\w.-]+, %?([\w.-]+)\), direction=LT", re.MULTILINE)


class Work(NamedTuple):
    """What a program does in one run on one device."""

    cycles: float
    """Of the operations that the compiler makes."""
    kernel_bytes: float
    """What kernels in Pallas read and write, as they declare it."""

    def times(self, count: int) -> "Work":
        """As much work, so many times."""
        return Work(self.cycles * count, self.kernel_bytes * count)

    def seconds(self, speed: Speed) -> float:
        """How long it takes on a chip, at least."""
        return self.cycles / speed.clock + self.kernel_bytes / speed.bandwidth


def estimated_work(program: str) -> Work | None:
    """Add up the estimates in the text of a program; None where it has none.

    A loop counts as often as its condition says (`i < constant`, from 0), and once
    where it says something else. Of a branch the longest way counts: a step of which
    every network learns.
    """
    if '"estimated_cycles"' not in program:
        return None
    bodies, entry = _computations(program)
    known: dict[str, Work] = {}

    def work(name: str) -> Work:
        if name not in known:
            known[name] = _sum([_line(line, bodies, work) for line in bodies[name]])
        return known[name]

    return work(entry)


def _line(line: str, bodies: dict[str, list[str]], work) -> Work:
    if loop := _LOOP.search(line):
        condition, body = loop.groups()
        return _sum([work(condition), work(body)]).times(_trips(bodies[condition]))
    if branches := _TWO_BRANCHES.search(line):
        return max(work(name) for name in branches.groups())
    if branches := _BRANCHES.search(line):
        names = (name.strip(" %") for name in branches[1].split(","))
        return max(work(name) for name in names)
    if call := _CALL.search(line):
        return work(call[1])
    if kernel := _KERNEL.search(line):
        return Work(0.0, float(kernel[1]))
    cycles = _CYCLES.search(line)
    return Work(float(cycles[1]) if cycles else 0.0, 0.0)


def _sum(parts: list[Work]) -> Work:
    return Work(sum(p.cycles for p in parts), sum(p.kernel_bytes for p in parts))


def _trips(condition: list[str]) -> int:
    text = "\n".join(condition)
    if (below := _BELOW.search(text)) is None:
        return 1
    limit = re.search(rf"%?{re.escape(below[1])} = \S+ constant\((\d+)\)", text)
    return int(limit[1]) if limit else 1


def _computations(program: str) -> tuple[dict[str, list[str]], str]:
    """Return the lines of each computation by its name, and the name of the first."""
    bodies: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in program.splitlines():
        if heading := _COMPUTATION.match(line):
            lines = bodies[heading[2]] = []
            entry = heading[2] if heading[1] else entry
        else:
            lines.append(line)
    return bodies, entry
