"""Tables of the page of results, in Markdown, of what benchmarks/ wrote as JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from results_records import RESULTS, RecordError
from results_tables import markdown

_MIB = 2**20


def read(name: str) -> dict[str, Any]:
    """Return a file of `results/benchmarks`, which benchmarks write by `--json`."""
    path = RESULTS / "benchmarks" / f"{name}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(f"{path.name} is not in results/benchmarks") from None


def significant(value: float) -> str:
    """Return three digits and more: 0.63, 42.1, 1,056."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{decimals}f}"


def operators(name: str, base: str, skip: Sequence[str] = ()) -> str:
    """Return milliseconds of every subject, and their ratio to one of them."""
    content = read(name)
    found: Mapping[str, Mapping[str, float]] = content["milliseconds"]
    names = list(dict.fromkeys(x for part in found.values() for x in part))
    headings, cells = ["subject"], {one: [one] for one in names}
    for part, values in found.items():
        headings += [f"{part} (ms)", f"/ {base}"]
        for one, row in cells.items():
            value = values.get(one)
            row += ["", ""] if value is None else _beside(value, values[base])
    shown = [row for one, row in cells.items() if one not in skip]
    return f"{markdown(headings, shown)}\n\n{_below(content)}"


def _beside(value: float, base: float) -> list[str]:
    return [significant(value), significant(value / base)]


def training_steps(names: Sequence[str]) -> str:
    """Return steps of the autoencoder, of several files."""
    contents = [read(name) for name in names]
    cells = []
    for name, content in zip(names, contents, strict=True):
        for row in content["rows"]:
            times = row["milliseconds"]
            share = 100 * times["update"] / times["step"]
            cells.append(
                [
                    row["name"],
                    name,
                    content["options"]["dtype"],
                    str(row["batch_size"]),
                    f"{row['parameters']:,}",
                    "" if row["bytes"] is None else f"{row['bytes'] / _MIB:,.0f}",
                    f"{row['images_per_second']:,.1f}",
                    f"{times['step']:,.0f}",
                    f"{times['forward']:,.0f}",
                    f"{share:.1f} %",
                ]
            )
    headings = ["network", "run", "type", "batch", "parameters", "MiB of a step"]
    headings += ["images/s", "ms a step", "ms forward", "Adam and average"]
    return f"{markdown(headings, cells)}\n\n{_below(contents[0])}"


def denoisers(names: Sequence[str]) -> str:
    """Return steps and evaluations of denoisers, of several files."""
    contents = [read(name) for name in names]
    cells = []
    for content in contents:
        for row in content["rows"]:
            times, images = row["milliseconds"], row["images"]
            once = times.get("evaluation")
            cells.append(
                [
                    row["name"],
                    f"{row['parameters']:,}",
                    f"{times['step']:,.0f}",
                    "" if once is None else significant(once / images),
                ]
            )
    headings = ["network", "parameters", "ms a step", "ms an image and evaluation"]
    return f"{markdown(headings, cells)}\n\n{_below(contents[0])}"


def complexity(name: str) -> str:
    """Return Table 2: exponents, measured and by the paper's formula."""
    content = read(name)
    found = {(x["operator"], x["row"], x["variable"]): x for x in content["cells"]}
    variables = [x for x in "BCNGP" if any(key[2] == x for key in found)]
    cells = []
    for operator in dict.fromkeys(key[0] for key in found):
        for row in ("parameters", "training", "inference", "space"):
            values = [found.get((operator, row, x)) for x in variables]
            if any(values):
                cells.append([operator, row, *map(_exponent, values)])
    headings = ["operator", "row", *(f"over {x}" for x in variables)]
    return f"{markdown(headings, cells)}\n\n{_below(content)}"


def _exponent(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return ""
    measured, paper = (f"{round(cell[x], 2) + 0.0:.2f}" for x in ("slope", "paper"))
    mark = {"": "", "print off, count holds": " †", "print off, count off": " ‡"}
    return f"{measured} ({paper}){mark[cell['remark']]}"


def rate_distortion(name: str) -> str:
    """Return bits a pixel and quality of every codec and setting."""
    content = read(name)
    cells = [
        [f"{row['codec']}, {row['setting']}", *_quality(row)] for row in content["rows"]
    ]
    headings = ["codec", "bytes an image", "bits a pixel", "PSNR (dB)", "SSIM"]
    return f"{markdown(headings, cells)}\n\n{_below(content)}"


def _quality(row: Mapping[str, Any]) -> list[str]:
    return [
        f"{row['bytes']:,.0f}",
        f"{row['bits_per_pixel']:.3f}",
        f"{row['psnr']:.2f} ± {row['psnr_std']:.2f}",
        f"{row['ssim']:.3f} ± {row['ssim_std']:.3f}",
    ]


def equal_bytes(name: str) -> str:
    """Return what every codec reaches with at most the bytes of the latent."""
    content = read(name)
    cells = []
    for one in content["equal_bytes"]:
        for codec in content["codecs"]:
            row = one["codecs"].get(codec)
            text = _quality(row) if row else ["out of reach", "", "", ""]
            setting = row["setting"].removeprefix("at ") if row else ""
            cells.append([f"{codec}, {setting}".removesuffix(", "), *text])
    headings = ["codec, at", "bytes an image", "bits a pixel", "PSNR (dB)", "SSIM"]
    return markdown(headings, cells)


def fact(name: str, key: str) -> str:
    """Return a number that a benchmark has found, for a sentence."""
    return f"{read(name)[key]:,.0f}"


def keep(path: str, name: str) -> Path:
    """Copy what a benchmark wrote to the results, without the places of a machine."""
    from deepprism_jax.files import write_text

    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read: {error}") from None
    if not {"benchmark", "machine", "options"} <= set(content):
        raise RecordError(f"{path} was written by no benchmark's --json")
    options = content["options"]
    content["options"] = {
        key: Path(value).name if isinstance(value, str) and "/" in value else value
        for key, value in options.items()
        if key not in ("json", "plot")
    }
    kept = RESULTS / "benchmarks" / f"{name}.json"
    write_text(kept, json.dumps(content, indent=1) + "\n")
    return kept


def _below(content: Mapping[str, Any]) -> str:
    """What it was measured on, in one line below the table."""
    machine = content["machine"]
    parts = [machine["processor"], f"{machine['cores']} core(s)"]
    if content.get("clock"):
        parts.append(f"{content['clock']} time")
    parts.append(f"jax {machine['jax']}")
    if "torch" in machine:
        parts.append(f"torch {machine['torch']}")
    if machine.get("malloc"):
        parts.append(f"malloc of {machine['malloc']}")
    parts.append("C++ kernels" if machine["kernels"] else "no C++ kernels")
    return f"*`benchmarks/{content['benchmark']}.py`; {', '.join(parts)}.*"
