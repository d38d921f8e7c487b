"""Tables of the page of results, in Markdown, of what benchmarks/ wrote as JSON."""

import json
from collections.abc import Mapping, Sequence
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
                    f"{row['bytes'] / _MIB:,.0f}",
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


def compression(name: str) -> str:
    """Return bits a pixel and quality of every codec and setting."""
    content = read(name)
    cells = [
        [
            row["codec"],
            row["setting"],
            f"{row['bytes']:,.0f}",
            f"{row['bits_per_pixel']:.3f}",
            f"{row['psnr']:.2f} ± {row['psnr_std']:.2f}",
            f"{row['ssim']:.3f} ± {row['ssim_std']:.3f}",
        ]
        for row in content["rows"]
    ]
    headings = ["codec", "setting", "bytes an image", "bits a pixel"]
    headings += ["PSNR (dB)", "SSIM"]
    return f"{markdown(headings, cells)}\n\n{_below(content)}"


def at_equal_bytes(name: str) -> str:
    """Return what other codecs reach at the bytes of every setting of the latent."""
    content = read(name)
    cells = [
        [
            f"{row['bits_per_pixel']:.3f}",
            *(_pair(row["codecs"].get(codec)) for codec in content["codecs"]),
        ]
        for row in content["equal_bytes"]
    ]
    codecs = [f"{codec}: PSNR (dB), SSIM" for codec in content["codecs"]]
    return markdown(["bits a pixel", *codecs], cells)


def _pair(found: Mapping[str, float] | None) -> str:
    return f"{found['psnr']:.2f}, {found['ssim']:.3f}" if found else "out of reach"


def _below(content: Mapping[str, Any]) -> str:
    """What it was measured on, in one line below the table."""
    machine = content["machine"]
    parts = [machine["processor"], f"{machine['cores']} core(s)"]
    if content.get("clock"):
        parts.append(f"{content['clock']} time")
    parts.append(f"jax {machine['jax']}")
    if "torch" in machine:
        parts.append(f"torch {machine['torch']}")
    parts.append("C++ kernels" if machine["kernels"] else "no C++ kernels")
    return f"*`benchmarks/{content['benchmark']}.py`; {', '.join(parts)}.*"
