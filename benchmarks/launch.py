"""Start several real processes of `train.py` on this machine, and end what is left."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]

OPTIONS = {
    "data.source": "folder",
    "data.image-size": ("16", "16"),
    "model.width": "8",
    "model.norm-groups": "4",
    "model.blocks": "1",
    "model.downsamples": "1",
    "model.attention": None,
    "optimizer.warmup-steps": "0",
    "train.steps": "12",
    "train.batch-size": "8",
    "train.log-every": "2",
    "train.eval-every": "0",
    "train.save-every": "4",
}
"""A network and a run that are quick to compile and to do; None turns an option off."""


def photographs(folder, train=20, test=5):
    """Write a folder of smooth images in color."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        (folder / split).mkdir(parents=True)
        for number in range(count):
            small = random.integers(0, 255, (3, 3, 3), np.uint8)
            image = Image.fromarray(small).resize((16, 16), Image.Resampling.BICUBIC)
            image.save(folder / split / f"{number}.png")
    return folder


def arguments(folder, **overrides):
    """Return the command line of a small run; `train__steps="3"` overrides."""
    changed = {k.replace("__", ".").replace("_", "-"): v for k, v in overrides.items()}
    argv = ["quickstart", "--data.path", str(folder)]
    for name, value in {**OPTIONS, **changed}.items():
        if value is None:
            group, _, field = name.partition(".")
            argv.append(f"--{group}.no-{field}")
        else:
            argv += [f"--{name}", *([value] if isinstance(value, str) else value)]
    return argv


def free_port():
    """Return a port that nothing listens on."""
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


class Processes:
    """N processes of one run; leaving the `with` block kills those that are left.

    Args:
        argv: arguments of `train.py`, the same for all, or a function of the number.
        count: processes; one alone is started as such.
        devices: virtual devices of each.
        cache: folder of compiled programs that runs share.
        before: Python that each runs first, to break something.
        environ: more variables of all, or a function of the number.
    """

    def __init__(self, argv, count, *, cache, devices=1, before="", environ=None):
        address = f"127.0.0.1:{free_port()}"
        self.processes = []
        for number in range(count):
            variables = {
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": str(devices),
                "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
                "JAX_COMPILATION_CACHE_DIR": str(cache),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "DEEPPRISM_NATIVE": "0",
            }
            if count > 1:
                variables |= {
                    "JAX_COORDINATOR_ADDRESS": address,
                    "JAX_NUM_PROCESSES": str(count),
                    "JAX_PROCESS_ID": str(number),
                }
            if environ:
                variables |= environ(number) if callable(environ) else environ
            own = argv(number) if callable(argv) else argv
            code = f"import sys; sys.path.insert(0, '.')\n{before}\n"
            code += f"import train; sys.exit(train.main({[str(x) for x in own]!r}))"
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", code],
                    cwd=ROOT,
                    env={**os.environ, **variables},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def send(self, number, name):
        """Send a signal to one process."""
        self.processes[number].send_signal(getattr(signal, name))

    def ends(self, timeout=120):
        """Wait for all and return their exit codes, stdouts and stderrs."""
        deadline = time.monotonic() + timeout
        outputs = [
            process.communicate(timeout=max(1, deadline - time.monotonic()))
            for process in self.processes
        ]
        return (
            [process.returncode for process in self.processes],
            [out for out, _ in outputs],
            [err for _, err in outputs],
        )

    def alive(self):
        """Say whether all still run."""
        return all(process.poll() is None for process in self.processes)


def last_step(workdir):
    """Return the last step that the log of a run tells of."""
    path = Path(workdir) / "metrics.jsonl"
    if not path.exists():
        return 0
    found = 0
    for line in path.read_text().splitlines():
        try:
            found = max(found, json.loads(line)["step"])
        except ValueError:  # being written
            continue
    return found


def wait_for_step(processes, workdir, step, timeout=120):
    """Wait until the log tells of a step; fail if a process ends before."""
    deadline = time.monotonic() + timeout
    while last_step(workdir) < step:
        if not processes.alive() or time.monotonic() > deadline:
            raise AssertionError(f"step {step} not reached: {processes.ends(30)}")
        time.sleep(0.05)
