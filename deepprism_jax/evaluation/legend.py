"""What a reader must know of a table's figures, in lines below it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from deepprism_jax.evaluation.records import networks_of
from deepprism_jax.evaluation.table4 import COMPARED, KERNELS, Row, column, columns_of
from deepprism_jax.metrics.state import Score

NAMED = 6
"""Methods that a line names; of more it tells the number."""


def lines(rows: Sequence[Row], facts: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know of the figures, one fact a line.

    Args:
        rows: the methods.
        facts: `evaluation.comparison.provenance`; besides, each of them optional,
            `subject`, words for what was evaluated;
            `networks`, name to `name`, `weights` and `resize` of a pretrained network;
            `reference`, words for what distributions are compared with, if that is not
            the images evaluated on; `kid_subset`, images in a subset of KID;
            `skipped`, lines on metrics that could not be measured; `notes`, lines.
    """
    return [
        *subject(facts),
        *meanings(rows),
        *measures(rows, facts),
        *settings(rows, facts),
        *remarks(facts),
    ]


def subject(facts: Mapping[str, Any]) -> Iterator[str]:
    """Say what was evaluated and by which version, where that is known."""
    if words := facts.get("subject"):
        yield f"{words}; deepprism_jax {facts.get('deepprism_jax')}"
        return
    if "images" not in facts or "image_size" not in facts:
        return
    size = "x".join(map(str, facts["image_size"]))
    data = f"{data_set(facts)} split {facts.get('split')!r}"
    if generated := facts.get("generated"):
        line = f"{facts['images']:,} generated images of {size} in {generated}"
        if real := facts.get("real_images"):
            line += f", beside {real:,} of {data}"
    else:
        line = f"{facts['images']:,} images of {size}, {data}"
    if model := facts.get("model"):
        step = facts.get("step")
        line += f"; {model}, "
        line += "an export" if step is None else f"checkpoint {step:,}"
    yield f"{line}; deepprism_jax {facts.get('deepprism_jax')}"


def data_set(facts: Mapping[str, Any]) -> str:
    """Name the data; where a machine keeps them tells nothing but of folders."""
    words = [facts.get("source"), facts.get("name")]
    if words[0] == "folder":
        words.append(facts.get("path"))
    return " ".join(str(word) for word in words if word)


def remarks(facts: Mapping[str, Any]) -> Iterator[str]:
    """Say what was left out, and whatever else the evaluation has to say."""
    yield from (f"left out: {line}" for line in facts.get("skipped") or ())
    yield from facts.get("notes") or ()


def basis(score: Score) -> str:
    """Say in words what a figure was taken over; nothing where it is not known."""
    if not score.count:
        return ""
    counted = f"{score.count:,} {score.over}"
    if score.over != "images" and score.images is not None:
        counted += f" of {score.images:,} images in all"
    return f"over {counted}" if score.std is None else f"mean ± std over {counted}"


def meanings(rows: Sequence[Row]) -> Iterator[str]:
    """Say what the figures and their ± were taken over, alike ones together."""
    labels: dict[str, list[str]] = {}
    for name in columns_of(rows):
        scores = {r.method: r.scores[name] for r in rows if name in r.scores}
        by_basis: dict[str, list[str]] = {}
        for method, score in scores.items():
            if words := basis(score):
                by_basis.setdefault(words, []).append(method)
        for words, methods in by_basis.items():
            heading = column(name).heading
            if len(by_basis) > 1:
                heading += f" of {_some(methods)}"
            labels.setdefault(words, []).append(heading)
    for words, headings in labels.items():
        yield f"{listed(headings)}: {words}"


def _some(methods: Sequence[str]) -> str:
    """Name methods; of a run of very many models only the first."""
    if len(methods) <= NAMED:
        return " and ".join(methods)
    return f"{methods[0]} and {len(methods) - 1:,} others"


def measures(rows: Sequence[Row], facts: Mapping[str, Any]) -> Iterator[str]:
    """Say which networks measured, alike metrics together."""
    headings: dict[tuple[str, ...], list[str]] = {}
    for name in columns_of(rows):
        if networks := networks_of(name, facts):
            headings.setdefault(tuple(networks), []).append(column(name).heading)
    for keys, measured in headings.items():
        networks = [_network(key, facts["networks"][key]) for key in keys]
        yield f"{listed(measured)}: by {'; '.join(networks)}"


def settings(rows: Sequence[Row], facts: Mapping[str, Any]) -> Iterator[str]:
    """Say with what distributions were compared, and by subsets of what size."""
    there = columns_of(rows)
    compared = [name for name in there if name in COMPARED]
    if compared and (reference := facts.get("reference")):
        headings = listed(column(name).heading for name in compared)
        yield f"{headings}: compared with {reference}"
    kernels = [column(name).heading for name in there if name in KERNELS]
    if kernels and (size := facts.get("kid_subset")):
        yield f"{listed(kernels)}: every subset has {size:,} images"


def _network(key: str, network: Mapping[str, Any]) -> str:
    words = (
        f"{network.get('name') or key}, weights {network.get('weights') or 'unknown'}"
    )
    if network.get("checked", "sha256") != "sha256":
        words += f" (a file checked by {network['checked']} alone)"
    return f"{words}, resize: {network['resize']}" if network.get("resize") else words


def listed(headings: Iterable[str]) -> str:
    """Join headings by commas; what several begin with is said once."""
    parts, prefix = [], None
    for heading in headings:
        first, _, rest = heading.partition(" ")
        parts.append(rest if rest and first == prefix else heading)
        prefix = first
    return ", ".join(parts)
