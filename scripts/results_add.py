"""A record of a run: what is in its folder, read; nothing typed but its name."""

import json
import shlex
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from results_records import HABITS, MEASURED, Record, RecordError
from training_command import training_command

_NOT_TOLD = {"data.latents", *(f"train.{name}" for name in HABITS)}
"""Fields that a command need not have: the run is the same without them."""

_KEPT = (*MEASURED, "real_images", "kid_subset", "networks", "notes", "sampler")
_KEPT += ("steps", "guidance", "subject", "step")


def from_run(options: Namespace) -> Record:
    """Return the record of a trained run, or of another method of its evaluation.

    Raises:
        RecordError: a file is missing or says too little.
    """
    run = Path(options.run)
    read = _read(run / "config.json")
    if not isinstance(read, Mapping) or "config" not in read:
        raise RecordError(f"{run / 'config.json'} is not that of a run of train.py")
    config = _plain(read["config"])
    lines = _lines(run / "metrics.jsonl")
    method, facts = {}, {}
    if not options.no_evaluation:
        where = Path(options.evaluation or run)
        method, facts = _evaluated(where / "metrics.json", options.method)
    metrics = {
        name: score
        for name, score in method.items()
        if isinstance(score, Mapping) and name not in options.without
    }
    shared = {
        "name": options.name,
        "label": options.label or options.name,
        "group": options.group,
        "parameters": method["parameters"] if method else _counted(lines),
        "code": method.get("code"),
        "measured_on": {k: _place(facts[k]) for k in _KEPT if facts.get(k) is not None},
        "metrics": metrics,
    }
    if options.baseline:
        return Record(kind="baseline", **shared)
    train = config["train"]
    curve: dict[str, list[list[float]]] = {}
    for number, line in enumerate(lines, 1):
        for name, value in line.items():
            if name.startswith("eval/") and not name.endswith("_std"):
                point = [line["step"], round(value, 5), round(_seconds(lines[:number]))]
                curve.setdefault(name, []).append(point)
    done = max(line["step"] for line in lines)
    if not options.unfinished and done < train["steps"]:
        raise RecordError(f"{run} is at step {done} of {train['steps']}; finish it")
    return Record(
        command=command(config, options.experiment, options.workdir, options.name),
        evaluation=_evaluation(options, facts) if facts else "",
        seed=train["seed"],
        steps=done,
        batch_size=train["batch_size"],
        seconds=round(_seconds(lines), 1),
        processor_seconds=options.processor_seconds,
        hardware=options.hardware or _hardware(lines),
        config=config,
        curve=curve,
        **shared,
    )


def command(config: Mapping[str, Any], experiment: str, workdir: str, name: str) -> str:
    """Return the command that trains a config: the nearest experiment, and overrides.

    Fields that the config, of an older version, does not have are left out.
    """
    from configs import CONFIGS

    known = {key: asdict(module.get_config()) for key, module in CONFIGS.items()}
    if experiment and experiment not in known:
        raise RecordError(f"{experiment} is unknown; choose from {', '.join(known)}")
    alike = [key for key, one in known.items() if set(config) <= set(one)]
    if not alike or (experiment and experiment not in alike):
        raise RecordError("the config goes with no experiment of configs/")
    nearest, line = training_command(
        config,
        [experiment] if experiment else alike,
        untold=_NOT_TOLD,
        show=lambda _, value: value,
    )
    workdir = workdir or f"runs/{name}"
    if workdir == f"runs/{nearest}":
        return line
    return f"{line} --workdir {shlex.quote(workdir)}"


def _evaluation(options: Namespace, facts: Mapping[str, Any]) -> str:
    workdir = options.workdir or f"runs/{options.name}"
    words = [f"python eval.py {shlex.quote(workdir)}"]
    if facts.get("sampler"):
        words.append(f"--samples {facts['images']} --sampler {facts['sampler']}")
        words.append(f"--steps {facts['steps']} --guidance {facts['guidance']:g}")
        words.append(f"--limit {facts['real_images']}")
    return " ".join(words)


def _evaluated(path: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    report = _read(path)
    methods = {one["method"]: one for one in report["methods"]}
    if name and name not in methods:
        raise RecordError(f"{path} has no method {name}; it has {', '.join(methods)}")
    return methods[name or next(iter(methods))], report["provenance"]


def _read(path: Path, parse: Callable[[str], Any] = json.loads) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        remedy = "train it, and run eval.py on it (or --no-evaluation)"
        raise RecordError(f"{path} is not there; {remedy}") from None
    except ValueError as error:
        raise RecordError(f"{path} is no JSON: {error}") from None


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return what train.py logged, line by line."""
    lines = _read(path, lambda text: [json.loads(x) for x in text.splitlines()])
    if not any("step" in line for line in lines):
        raise RecordError(f"{path} has no step yet; wait for the run's first one")
    return lines


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with names for the places of a machine."""
    return {
        group: {key: _place(value) for key, value in fields.items()}
        for group, fields in config.items()
    }


def _place(value: Any) -> Any:
    return Path(value).name if isinstance(value, str) and value[:1] == "/" else value


def _seconds(lines: list[dict[str, Any]]) -> float:
    """Return the wall time of all parts of a run that was stopped and resumed."""
    total, start, last = 0.0, lines[0]["time"], lines[0]["time"]
    for line in lines:
        if line.get("text", "").startswith("devices:"):
            total += last - start
            start = line["time"]
        last = line["time"]
    return total + last - start


def _counted(lines: list[dict[str, Any]]) -> int | None:
    for line in lines:
        kind, _, counts = line.get("text", "").partition(": ")
        if kind == "parameters":
            return sum(
                int(part.rsplit(" ", 1)[1].replace(",", ""))
                for part in counts.split(", ")
                if "discriminator" not in part
            )
    return None


def _hardware(lines: list[dict[str, Any]]) -> str:
    """Return the devices of the log, and the processor of this machine."""
    texts = [line.get("text", "") for line in lines]
    devices = next((x for x in texts if x.startswith("devices: ")), "devices: unknown")
    try:
        facts = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        facts = []
    names = (x.partition(":")[2].strip() for x in facts if x.startswith("model name"))
    processor = next(names, "unknown processor")
    return f"{processor}, {devices.removeprefix('devices: ').partition(';')[0]}"
