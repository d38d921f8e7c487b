"""Cycles of a TPU kernel, counted in the compiler's own final listing of it.

A TPU core issues one bundle of instructions a cycle. The listing names every bundle,
its depth of loops, the head of each loop and the test that ends it, so the bundles of a
loop times its trips are cycles. Branches count as taken, and nothing is known of
waiting for memory.
"""

import re
from pathlib import Path

_BUNDLE = re.compile(r"\s*(?:0x[0-9a-f]+|0)\s+(\w\w)?\s*:\s*(>*)\s*\{(\}|.*)")
_TEST = re.compile(
    r"scmp\.ge\.s32\.totalorder (?:\(\S+\), )?(%\w+), (\d+) /\* loop exit test"
)
_STEP = re.compile(r"(%\w+) = sadd\.s32 (?:\(\S+\), )?(\d+),")


def listings(folder: Path) -> dict[str, Path]:
    """The final listing of every kernel whose compilation was dumped to a folder."""
    found = {}
    for path in folder.glob("*-final_bundles.txt"):
        if "schedule-analysis" not in path.name:
            name = path.name.split("-", 1)[1].rsplit("-", 2)[0]
            found[name] = path
    return found


class _Loop:
    """Bundles of one loop, and how often it runs in all."""

    def __init__(self, outer: "_Loop | None"):
        self.outer, self.bundles, self.trips = outer, 0, 0

    def times(self) -> int:
        return self.trips * (self.outer.times() if self.outer else 1)


def cycles(listing: str) -> int:
    """Bundles of a listing, each as often as its loops run.

    Raises:
        ValueError: a loop has no test that a constant ends.
    """
    steps = dict(_STEP.findall(listing))
    program = _Loop(None)
    program.trips = 1
    loops, at, depth = [program], {0: program}, 0  # at: the latest loop of each depth
    for line in listing.splitlines():
        if not (match := _BUNDLE.match(line)):
            continue
        label, marks, body = match.groups()
        if body != "}":  # an empty bundle has no mark of its depth
            depth = len(marks)
        if label == "LB":
            at[depth] = _Loop(at[depth - 1])
            loops.append(at[depth])
            # A pipelined grid fetches one trip ahead and stores one behind.
            at[depth].trips = -2 if "iteration index, stage" in body else 0
        at[depth].bundles += 1
        if test := _TEST.search(body):
            at[depth].trips += -(-int(test[2]) // int(steps.get(test[1], 1)))
    if not all(loop.trips for loop in loops):
        raise ValueError("a loop of the listing has no exit test by a constant")
    return sum(loop.bundles * loop.times() for loop in loops)
