"""A plan as a table to read and as JSON."""

import json
from dataclasses import asdict
from pathlib import Path

import jax
from rich.table import Table

from deepprism_jax.analysis.plan import Plan
from deepprism_jax.analysis.plan_sweep import advice
from deepprism_jax.files import write_text
from deepprism_jax.training.preflight import plural
from deepprism_jax.training.systems import Experiment


def plan_title(name: str, plan: Plan) -> str:
    """Say what is planned, and on what."""
    return (
        f"{name} on {plan.topology}: {plan.devices} "
        f"{plural(plan.devices, 'device')}, {plan.hosts} {plural(plan.hosts, 'host')}; "
        "compiled, not run; of one device, one step:"
    )


def plan_table(plans: list[Plan]) -> Table:
    """One column a plan: its batch, memory and communication."""
    table = Table()
    table.add_column("", no_wrap=True)
    for plan in plans:
        table.add_column(f"batch {plan.batch_size}", justify="right", no_wrap=True)
    for heading, *cells in _rows(plans):
        table.add_row(heading, *cells, end_section=heading in _ENDS)
    return table


_ENDS = {"computed again", "images at once", "headroom", "operations"}


def _rows(plans: list[Plan]) -> list[list[str]]:
    def row(heading: str, of) -> list[str]:
        return [heading, *map(of, plans)]

    def part(kind: str):
        return lambda p: size(getattr(p.memory, kind)) if p.memory else "-"

    kinds = dict.fromkeys(c.kind for plan in plans for c in plan.collectives)

    def sent(kind: str):
        def cell(plan: Plan) -> str:
            found = [c for c in plan.collectives if c.kind == kind]
            return f"{found[0].count} x, {size(found[0].bytes)}" if found else "-"

        return cell

    return [
        row(
            "mesh: data x fsdp x channel",
            lambda p: " x ".join(map(str, p.mesh.values())),
        ),
        row("computed again", lambda p: p.remat),
        row("images a device", lambda p: str(p.device_batch)),
        row("micro-batches", lambda p: str(p.accumulation)),
        row("images at once", lambda p: str(p.micro_batch)),
        row("fits", lambda p: "yes" if p.fits else "NO"),
        row("memory needed", lambda p: size(p.needed)),
        row("arguments (state, images)", part("arguments")),
        row("outputs not in place", part("outputs")),
        row("temporaries", part("temporaries")),
        row("code", part("code")),
        row("memory there", lambda p: size(p.available)),
        row("headroom", _headroom),
        *(row(kind, sent(kind)) for kind in kinds),
        row("gradients, float32", lambda p: size(p.parameter_bytes)),
        row("all-reduce / gradients", _reduced),
        row("operations", _operations),
        row("Pallas kernels", lambda p: str(p.kernels) if p.memory else "-"),
        row("step at least, estimated", _step),
        row("images a second, estimated", _rate),
        row("compiled here in", lambda p: f"{p.seconds:.0f} s"),
    ]


def _headroom(plan: Plan) -> str:
    return ("-" if plan.needed > plan.available else "") + size(
        abs(plan.available - plan.needed)
    )


def _reduced(plan: Plan) -> str:
    """The gradients are reduced once, as parameters, and not as dense kernels."""
    reduced = sum(c.bytes for c in plan.collectives if c.kind == "all-reduce")
    return f"{reduced / plan.parameter_bytes:.1%}" if plan.memory else "-"


def _operations(plan: Plan) -> str:
    return "-" if plan.operations is None else f"{plan.operations / 1e9:.4g} G"


def _step(plan: Plan) -> str:
    return "-" if plan.estimate is None else f"{plan.estimate * 1e3:.4g} ms"


def _rate(plan: Plan) -> str:
    return "-" if plan.estimate is None else f"{plan.batch_size / plan.estimate:,.0f}"


def size(number: int | float) -> str:
    """Return a number of bytes in words, to four digits at most."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(number) < 1000 or unit == "GiB":
            break
        number /= 1024
    return f"{number:.4g} {unit}"


def write_json(
    path: str | Path, name: str, config: Experiment, plans: list[Plan]
) -> None:
    """Write the plans and what they are of; whole, or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    content = {
        "nature": "compiled ahead of time, not run; bytes and operations are of one "
        "device and one step, `estimate` is seconds as the compiler estimates them",
        "jax": jax.__version__,
        "name": name,
        "config": asdict(config),
        "advice": advice(plans),
        "plans": [plan.facts() for plan in plans],
    }
    write_text(path, json.dumps(content, indent=2) + "\n")
