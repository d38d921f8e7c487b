"""Kill one of several training processes, again and again: the run must come out whole.

    python benchmarks/preemption.py --processes 2 --kills 20 --seed 0

trains a tiny network once without a break, then again while one process at a time,
drawn at random, is killed (SIGKILL) at a random moment: while the processes start, a
while after a step, or while a checkpoint is being saved in the background. After each
kill all of them are started again with --resume. In the end every array of the last
checkpoint and the exported model must be the same bit for bit; on the way no checkpoint
may be damaged and no process may wait for the one that is gone.
"""

import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from launch import ROOT, Processes, arguments, last_step, photographs
from report import Report

from deepprism_jax.training import cli, program
from deepprism_jax.weights.items import load_items, steps

sys.path.insert(0, str(ROOT))  # `configs` lies beside the package

from configs import CONFIGS

IMPATIENT = """
from deepprism_jax.training import processes, watchdog
processes.START_SECONDS, watchdog.LOST_AFTER = 60, 20
"""
"""Shorter waits than of a run on many hosts: for all to meet, for signs of life."""

Moment = Literal["start", "step", "save"]


@dataclass(frozen=True)
class Options(Report):
    """What is done."""

    processes: int = 2
    """Processes of the run."""
    kills: int = 20
    """Kills, each followed by a start with --resume."""
    seed: int = 0
    """Seed of whom is killed and when."""
    steps: int = 400
    """Steps of the run; enough for the kills to come before its end."""
    save_every: int = 10
    """Steps between checkpoints."""
    patience: float = 120.0
    """Seconds in which the others must end."""


@dataclass
class Kill:
    """One kill, and what came of it."""

    number: int
    moment: Moment
    victim: int
    delay: float
    """Seconds after the start, the step or the first sight of the save."""
    step: int
    """Last step in the log."""
    saving: bool
    """A checkpoint was half-written then."""
    codes: list[int]
    """Exit codes; -9 is the kill, -6 an abort of JAX's runtime."""
    seconds: float
    """Until the others had ended."""
    resumes_from: int
    """Newest complete checkpoint."""
    said: str
    """First line that the first of the others left."""


def being_saved(workdir: Path, since: float) -> bool:
    """Say whether there is a checkpoint half-written after a time."""
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        return False
    complete = {str(step) for step in steps(folder)}
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # it has just been renamed or deleted
            if path.name not in complete and path.stat().st_mtime > since:
                return True
    return False


def strike(
    run: Processes, workdir: Path, options: Options, number: int, draw: random.Random
) -> Kill | None:
    """Kill one of the processes at a random moment; None if the run was done before."""
    moment: Moment = draw.choice(["start", "step", "step", "save", "save", "save"])
    victim = draw.randrange(options.processes)
    began, started, first = time.monotonic(), time.time(), last_step(workdir)
    if moment == "start":
        delay = draw.uniform(0.5, 15.0)
    else:
        while run.alive() and last_step(workdir) <= first:
            time.sleep(0.01)
        began, delay = time.monotonic(), draw.uniform(0.0, 1.5)
        if moment == "save":
            time.sleep(delay)
            while run.alive() and not being_saved(workdir, started):
                time.sleep(0.001)
            began, delay = time.monotonic(), draw.uniform(0.0, 0.15)
    while run.alive() and time.monotonic() < began + delay:
        time.sleep(0.001)
    if not run.alive():
        return None
    step, saving = last_step(workdir), being_saved(workdir, started)
    run.send(victim, "SIGKILL")
    began = time.monotonic()
    try:
        codes, outputs, errors = run.ends(options.patience)
    except subprocess.TimeoutExpired:
        raise SystemExit(
            f"kill {number}, of process {victim}, {delay:.1f} s after its {moment}: "
            f"the others still wait after {options.patience:g} s"
        ) from None
    seconds = time.monotonic() - began
    everything = "\n".join(outputs + errors)
    if "cannot be read" in everything:
        raise SystemExit(f"a checkpoint is damaged:\n{everything}")
    if 0 in codes:
        return None
    kept = steps(workdir / "checkpoints")
    return Kill(
        number,
        moment,
        victim,
        round(delay, 3),
        step,
        saving,
        codes,
        round(seconds, 1),
        kept[-1] if kept else 0,
        (errors[1 if victim == 0 else 0].strip().splitlines() or [""])[0],
    )


def last_saved(argv: list[str], workdir: Path) -> dict[str, bytes]:
    """Return all that the last checkpoint holds, by name."""
    target = program.make_trainer(cli.parse(argv, CONFIGS).config).state_target
    last = workdir / "checkpoints" / str(steps(workdir / "checkpoints")[-1])
    items = load_items(last, {"state": target, "ema": target.ema, "data": None})
    leaves = jax.tree_util.tree_flatten_with_path(items)[0]
    return {jax.tree_util.keystr(path): np.asarray(x).tobytes() for path, x in leaves}


def everything_saved(argv: list[str], workdir: Path) -> dict[str, bytes]:
    """Return all that the last checkpoint and the export hold, by name."""
    model = workdir / "model" / "model.safetensors"
    return {**last_saved(argv, workdir), "model": model.read_bytes()}


def main(options: Options) -> dict[str, Any]:
    """Do it and return the figures.

    Raises:
        SystemExit: a run failed, or the end is not the same.
    """
    options.check()
    folder = Path(tempfile.mkdtemp(prefix="preemption-"))
    try:
        return _main(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _main(options: Options, folder: Path) -> dict[str, Any]:
    argv = arguments(
        photographs(folder / "photographs"),
        train__steps=str(options.steps),
        train__save_every=str(options.save_every),
        train__log_every="5",
    )

    def start(name: str) -> Processes:
        workdir = folder / name
        checkpoints = workdir / "checkpoints"
        resume = checkpoints.is_dir() and steps(checkpoints)
        return Processes(
            [*argv, "--workdir", workdir, *(["--resume"] if resume else [])],
            options.processes,
            cache=folder / "cache",
            before=IMPATIENT,
        )

    def finish(name: str) -> None:
        with start(name) as run:
            codes, outputs, errors = run.ends(600)
        if any(codes) or "cannot be read" in "\n".join(outputs):
            raise SystemExit(f"{name} failed: {codes}\n{outputs}\n{errors}")

    finish("whole")
    draw, kills = random.Random(options.seed), []
    while len(kills) < options.kills:
        with start("killed") as run:
            kill = strike(run, folder / "killed", options, len(kills) + 1, draw)
        if kill is None:
            raise SystemExit("the run was done before all kills; choose more --steps")
        kills.append(kill)
        print(json.dumps(asdict(kill)), flush=True)
    finish("killed")
    whole, killed = (everything_saved(argv, folder / n) for n in ("whole", "killed"))
    different = sorted(k for k in whole if whole[k] != killed.get(k))
    if different or whole.keys() != killed.keys():
        raise SystemExit(f"not the same after {options.kills} kills: {different}")
    figures = {
        "identical_arrays": len(whole),
        "kills_during_a_save": sum(kill.saving for kill in kills),
        "longest_seconds_until_the_others_ended": max(kill.seconds for kill in kills),
    }
    print(json.dumps(figures))
    options.write_json("preemption", **figures, kills=[asdict(k) for k in kills])
    return figures


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
