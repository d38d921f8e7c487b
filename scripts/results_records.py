"""Records of results: one JSON file a measured row and seed, in results/runs.

A record holds what `train.py` and `eval.py` wrote of one run: its config, the figures
with what they were measured on and by, its curve and its time. Records of one name
differ by their seed alone, and stand in one row.
"""

import dataclasses
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"

MEASURED = ("source", "split", "images", "image_size")
"""What figures must share to stand in one table."""

HABITS = {"log_every", "eval_every", "eval_images", "save_every", "keep", "keep_best"}
"""How often training looks at itself, which makes no other run."""


class RecordError(ValueError):
    """A record that cannot be read, or does not go with the others."""


@dataclass(frozen=True)
class Record:
    """One row's run of one seed."""

    name: str
    """Records of the same name differ by the seed alone."""
    label: str
    """First cell of the row."""
    group: str
    """Tables show groups, so that a new row comes without editing the template."""
    kind: str = "model"
    """`model` was trained; `baseline` was not, or is fitted without a network."""
    command: str = ""
    """How it was trained, `train.py ...`; empty for a baseline."""
    evaluation: str = ""
    """How it was measured, `eval.py ...`; empty where it was not."""
    seed: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    seconds: float | None = None
    """Wall time of training, evaluations included."""
    processor_seconds: float | None = None
    hardware: str = ""
    parameters: int | None = None
    code: int | None = None
    """Numbers that an image becomes."""
    config: Mapping[str, Any] = field(default_factory=dict)
    measured_on: Mapping[str, Any] = field(default_factory=dict)
    """Data, split, images, size, networks: the provenance of the evaluation."""
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Figures by name: value, std, count, over."""
    curve: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    """Step, figure and seconds since the start, by the name that training gave it."""

    @property
    def path(self) -> Path:
        """Where it is kept, below `results/runs`."""
        seed = "" if self.seed is None else f"-seed{self.seed}"
        return Path(f"{self.name}{seed}.json")


@dataclass(frozen=True)
class Row:
    """Records of one name: the first, and figures over all seeds."""

    first: Record
    records: Sequence[Record]

    def of_seed(self, seed: int) -> "Row":
        """Return the row of one seed.

        Raises:
            RecordError: there is no record of it.
        """
        for one in self.records:
            if one.seed == seed:
                return Row(one, [one])
        raise RecordError(f"{self.first.name} has no record of seed {seed}")

    def metric(self, name: str) -> dict[str, Any] | None:
        """Return the mean over seeds of a figure and of its ±, and ± over seeds."""
        found = [one.metrics[name] for one in self.records if name in one.metrics]
        if not found or any(one.get("value") is None for one in found):
            return None
        stds = [one["std"] for one in found if one.get("std") is not None]
        values = [one["value"] for one in found]
        return {
            **found[0],
            "value": statistics.mean(values),
            "std": statistics.mean(stds) if stds else None,
            "seeds_std": statistics.stdev(values) if len(values) > 1 else None,
        }

    def last(self, name: str) -> float | None:
        """Return the mean over seeds of the end of a curve."""
        ends = [one.curve[name][-1][1] for one in self.records if one.curve.get(name)]
        return statistics.mean(ends) if ends else None

    def mean(self, name: str) -> float | None:
        """Return the mean over seeds of a number of the records."""
        values = [getattr(one, name) for one in self.records]
        known = [value for value in values if value is not None]
        return statistics.mean(known) if known else None


def read(folder: Path = RESULTS / "runs") -> dict[str, Row]:
    """Return the rows of a folder of records by name.

    Raises:
        RecordError: a record is damaged, or those of a name differ by more than seeds.
    """
    records: dict[str, list[Record]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            record = Record(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise RecordError(f"{path.name} is no record: {error}") from None
        if record.path.name != path.name:
            raise RecordError(f"{path.name} holds {record.path}; rename the file")
        records.setdefault(record.name, []).append(record)
    rows = {name: Row(found[0], found) for name, found in records.items()}
    for row in rows.values():
        for other in row.records[1:]:
            agree(row.first, other)
    return rows


def agree(first: Record, other: Record) -> None:
    """Refuse two records of one name that differ by more than the seed."""
    pairs = {
        **_differences(first.config, other.config),
        **_differences(_subject(first), _subject(other)),
    }
    different = [f"{name} ({a} and {b})" for name, (a, b) in pairs.items()]
    for name in ("label", "group"):
        if getattr(first, name) != getattr(other, name):
            different.append(name)
    if different:
        raise RecordError(
            f"{first.path} and {other.path} differ by {', '.join(different)}; "
            "give the run another --name"
        )


def write(record: Record, folder: Path = RESULTS / "runs") -> Path:
    """Write a record whole or not at all, and return its path."""
    from deepprism_jax.files import write_text

    text = json.dumps(dataclasses.asdict(record), indent=1, ensure_ascii=False)
    path = folder / record.path
    write_text(path, _short_lists(text) + "\n")
    return path


def _short_lists(text: str) -> str:
    """Put lists of numbers on a line each, for `git diff` and for the eye."""
    numbers = re.compile(r"\[[\s\d.e+,-]+\]")
    return numbers.sub(lambda found: " ".join(found[0].split()), text)


def _subject(record: Record) -> dict[str, Any]:
    return {key: record.measured_on.get(key) for key in MEASURED}


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Return pairs of values that differ, by dotted name; seeds may."""
    found = {}
    for key in a.keys() | b.keys():
        x, y = a.get(key), b.get(key)
        if isinstance(x, Mapping) and isinstance(y, Mapping):
            inner = _differences(x, y)
            found |= {f"{key}.{name}": pair for name, pair in inner.items()}
        elif x != y and key != "seed" and key not in HABITS:
            found[key] = (x, y)
    return found
