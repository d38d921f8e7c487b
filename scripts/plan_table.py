"""The table of docs/tpu.md: every experiment on five slices, compiled and not run.

    python scripts/plan_table.py FOLDER              # of the plans that are there
    python scripts/plan_table.py FOLDER --compile    # first makes those that are not

A plan is what `python -m deepprism_jax.analysis plan --json` writes, here
FOLDER/CONFIG-SLICE.json. To make one takes minutes, and the extra tpu.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepprism_jax.analysis.plan_report import size
from deepprism_jax.analysis.plan_topology import parse_slice

SLICES = {
    "v4-32": "v4:2x2x4",
    "v5e-16": "v5e:4x4",
    "v5e-256": "v5e:16x16",
    "v5p-128": "v5p:4x4x4",
    "v6e-64": "v6e:8x8",
}
"""Cloud TPU's names, of which those of v4 and v5p count cores, and the topologies."""

# With the images, latents or copies of an image on each device.
CONFIGS = {
    "quickstart": 16,
    "cifar10_dense": 16,
    "cifar10_deepprism": 16,
    "cifar10_vq": 16,
    "imagenet256_dense": 8,
    "imagenet256_deepprism": 8,
    "sinddm_dense": 2,
    "sinddm_deepprism": 2,
    "ldm_cifar10_dense": 16,
    "ldm_cifar10_deepprism": 16,
    "ldm_celebahq_dense": 8,
    "ldm_imagenet256_deepprism": 8,
}
HEADINGS = (
    "experiment",
    "slice",
    "batch",
    "memory of a device",
    "of it temporaries, code",
    "collectives",
    "their bytes",
    "gradients",
    "operations",
    "step, estimated",
    "compiled in",
)


def plan_file(folder: Path, config: str, topology: str) -> Path:
    """Where the plan of an experiment on a slice is."""
    return folder / f"{config}-{topology.replace(':', '-')}.json"


def make(folder: Path, config: str, topology: str) -> None:
    """Compile an experiment for a slice, in a process of its own."""
    batch = CONFIGS[config] * parse_slice(topology).devices
    command = [sys.executable, "-m", "deepprism_jax.analysis", "plan", config]
    command += ["--topology", topology, "--train.batch-size", str(batch)]
    if config.startswith("imagenet"):
        command += ["--loss.perceptual-heads", "lpips"]
    file = plan_file(folder, config, topology)
    subprocess.run([*command, "--json", str(file)], check=True)


def row(config: str, name: str, plan: dict[str, Any] | None) -> list[str]:
    """The cells of one plan; None was not compiled."""
    begin = [f"`{config}`", name]
    if plan is None:
        return [*begin, "not compiled", *[""] * (len(HEADINGS) - 3)]
    begin += [f"{plan['batch_size']:,}", size(plan["needed"])]
    if plan["memory"] is None:
        missing = f"does not fit in {size(plan['available'])}"
        return [*begin, missing, *[""] * (len(HEADINGS) - 5)]
    parts, sent = plan["memory"], plan["collectives"]
    estimate = plan.get("estimate")
    return [
        *begin,
        f"{size(parts['temporaries'])}, {size(parts['code'])}",
        ", ".join(f"{one['count']} {one['kind']}" for one in sent),
        ", ".join(size(one["bytes"]) for one in sent),
        size(plan["parameter_bytes"]),
        f"{plan['operations'] / 1e9:,.0f} G" if plan["operations"] else "",
        f"{estimate * 1e3:,.1f} ms" if estimate else "",
        f"{plan['seconds']:.0f} s",
    ]


def table(folder: Path) -> list[str]:
    """The lines of the table, in Markdown."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|" + "---|" * len(HEADINGS)]
    for config in CONFIGS:
        for name, topology in SLICES.items():
            file = plan_file(folder, config, topology)
            plan = None
            if file.is_file():
                (plan,) = json.loads(file.read_text())["plans"]
            lines.append(f"| {' | '.join(row(config, name, plan))} |")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--compile", action="store_true", help="make missing plans")
    asked = parser.parse_args(argv)
    if asked.compile:
        asked.folder.mkdir(parents=True, exist_ok=True)
        for config in CONFIGS:
            for topology in SLICES.values():
                if not plan_file(asked.folder, config, topology).is_file():
                    make(asked.folder, config, topology)
    print("\n".join(table(asked.folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
