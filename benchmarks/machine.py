"""What a measurement was made on."""

import platform
import sys
from pathlib import Path
from typing import Any

import jax
from timing import cores

from deepprism_jax.ops.native import library
from deepprism_jax.training.allocator import allocator


def facts() -> dict[str, Any]:
    """Processor or accelerator, cores, versions, malloc, use of C++ kernels."""
    found = {
        "processor": _processor(),
        "cores": cores(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "malloc": allocator(),
        "kernels": jax.default_backend() == "cpu" and library.loaded(),
    }
    if torch := sys.modules.get("torch"):
        found["torch"] = str(torch.__version__)
    return found


def describe(found: dict[str, Any]) -> str:
    """Those facts in one line, below a table."""
    parts = [found["processor"], f"{found['cores']} core(s)", f"jax {found['jax']}"]
    if found["device"] != "cpu":
        parts.insert(0, found["device"])
    if "torch" in found:
        parts.append(f"torch {found['torch']}")
    if found.get("malloc"):
        parts.append(f"malloc of {found['malloc']}")
    parts.append("C++ kernels" if found["kernels"] else "no C++ kernels")
    return ", ".join(parts)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
