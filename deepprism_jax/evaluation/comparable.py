"""Whether the figures of two evaluations may stand beside each other."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from deepprism_jax.evaluation.legend import basis, data_set, listed
from deepprism_jax.evaluation.records import Report, networks_of
from deepprism_jax.evaluation.table4 import COMPARED, KERNELS, column, columns_of

Named = Mapping[str, Report]
"""Reports of runs by the name of the run."""


def _images(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells the images of two evaluations apart, by words for it."""
    return {
        "kind": facts.get("kind")
        or ("generated images" if facts.get("generated") else "reconstructions"),
        "real images": facts.get("real_images"),
        "data": data_set(facts),
        "split": facts.get("split"),
        "images": facts.get("images"),
        "size": "x".join(map(str, facts.get("image_size") or ())),
        "channels": facts.get("channels"),
        "resize": facts.get("resize"),
    }


def is_papers(facts: Mapping[str, Any]) -> bool:
    """Tell whether these are the images of Table 4."""
    subject = _images(facts)
    del subject["data"]
    name = facts.get("name") if facts.get("source") == "tfds" else facts.get("source")
    del subject["resize"]  # of no effect on images of this size
    return re.split("[:/]", name or "")[0] == "cifar10" and subject == {
        "kind": "reconstructions",
        "real images": None,
        "split": "test",
        "images": 10_000,
        "size": "32x32",
        "channels": 3,
    }


def has_papers_kind(reports: Named) -> bool:
    """Tell whether the paper's Table 4 has rows of the kind of one of these runs."""
    return any("kind" not in report.facts for report in reports.values())


def differences(reports: Named) -> list[str]:
    """Say in which respects the images of the runs differ."""
    subjects = {name: _images(report.facts) for name, report in reports.items()}
    lines = []
    for key in next(iter(subjects.values())):
        values = {name: subject[key] for name, subject in subjects.items()}
        if len(set(values.values())) > 1:
            lines.append(f"runs differ in {key} ({_each(values)})")
    return lines


def incomparable(reports: Named) -> tuple[set[str], list[str]]:
    """Return the metrics that runs measured differently, and lines that say so."""
    reasons: dict[str, list[str]] = {}
    aspects: dict[str, Callable[[str, Report], Any]] = {
        "networks": lambda name, report: _network(name, report.facts, "name"),
        "weights": lambda name, report: _network(name, report.facts, "weights"),
        "resizes": lambda name, report: _network(name, report.facts, "resize"),
        "samples": lambda name, report: basis(report.rows[0].scores[name]),
        "references": lambda name, report: (
            name in COMPARED and (report.facts.get("reference") or "the images")
        ),
        "subset sizes": lambda name, report: (
            name in KERNELS and report.facts.get("kid_subset")
        ),
    }
    for name in columns_of([report.rows[0] for report in reports.values()]):
        there = {
            run: report
            for run, report in reports.items()
            if name in report.rows[0].scores
        }
        for words, aspect in aspects.items():
            values = {run: aspect(name, report) for run, report in there.items()}
            if len(set(values.values())) > 1:
                reason = f"runs differ in {words} ({_each(values)})"
                reasons.setdefault(reason, []).append(name)
    lines = [
        f"{listed(column(name).heading for name in names)} do not compare: {reason}"
        for reason, names in reasons.items()
    ]
    return {name for names in reasons.values() for name in names}, lines


def _network(metric: str, facts: Mapping[str, Any], key: str) -> str:
    used = networks_of(metric, facts)
    return ", ".join(str(network[key]) for network in used.values() if network.get(key))


def _each(values: Mapping[str, Any]) -> str:
    words = {
        run: f"{value:,}" if isinstance(value, int) else value or "unknown"
        for run, value in values.items()
    }
    return "; ".join(f"{run}: {word}" for run, word in words.items())
