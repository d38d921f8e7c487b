"""The channel convolution: every formulation against what this machine can do.

    python benchmarks/operators.py --size 8 32 32 256
    taskset -c 0 python benchmarks/operators.py       # on one core

Times a 3x3x3 convolution of one field, float32, channels on a circle: forward, and
forward with both gradients. Beside the formulations of `prism_conv` stand a copy of the
array; a C kernel without a framework (`limit.c`, compiled on the spot: the practical
limit); dense and grouped convolutions of as many channels in JAX; and, where torch is
installed, its Conv3d as in the paper and its dense, grouped and depthwise
convolutions. Subjects take turns in short bursts and the median of each is printed, so
that a busy machine slows all alike: read the ratios. Results are checked first.
"""

import ctypes
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from deepprism_jax.ops import prism_conv
from deepprism_jax.ops.grouped import grouped_conv
from deepprism_jax.ops.native import library
from deepprism_jax.training.allocator import keep_memory

LIMIT = "C kernel"


@dataclass(frozen=True)
class Options:
    """What to measure."""

    size: tuple[int, int, int, int] = (8, 32, 32, 256)
    """Batch, height, width, channels; channels a multiple of 32."""
    methods: tuple[str, ...] = ("native", "shift_and_add", "banded")
    """Formulations of `prism_conv`; `native` where it is built."""
    groups: int = 32
    """Groups of the grouped convolutions."""
    seconds: float = 0.05
    """Least time of a burst."""
    bursts: int = 9
    """Bursts of each subject, in turn."""
    json: str = ""
    """File to write the figures to."""


Run = Callable[[], Any]
Pair = tuple[Run, Run]
"""A forward pass, and one with both gradients."""


def c_subjects(x: np.ndarray, kernel: np.ndarray, g: np.ndarray) -> dict[str, Pair]:
    """Compile `limit.c` and wrap what is in it."""
    try:
        compiler = library.find_compiler()
    except library.BuildError as error:
        raise SystemExit(f"error: {error}") from None
    threads = len(os.sched_getaffinity(0))
    os.environ["OMP_NUM_THREADS"] = str(threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "limit.so"
        flags = ["-x", "c", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"]
        source = Path(__file__).with_name("limit.c")
        subprocess.run([compiler, *flags, str(source), "-o", str(path)], check=True)
        limit = ctypes.CDLL(str(path))
    y, dx, dk = np.empty_like(x), np.empty_like(x), np.empty_like(kernel)

    def call(function: Any, *arrays: np.ndarray) -> None:
        pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in arrays]
        function(*pointers, *map(ctypes.c_int, x.shape))

    def forward():
        call(limit.forward, x, kernel, y)
        return y

    def gradients():
        forward()
        call(limit.input_gradient, g, kernel, dx)
        call(limit.kernel_gradient, x, g, dk)
        return y, dx, dk

    def copy():
        pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (x, y)]
        limit.copy(*pointers, ctypes.c_size_t(x.size))

    return {"copy": (copy, copy), LIMIT: (forward, gradients)}


def jax_pair(conv: Callable[..., jax.Array], *operands: jax.Array) -> Pair:
    """Compile a convolution of two operands and its gradients; the third is d/dy."""
    x, kernel, g = operands

    def with_gradients(x, kernel, g):
        y, pull = jax.vjp(conv, x, kernel)
        return y, *pull(g)

    once, both = jax.jit(conv), jax.jit(with_gradients)
    return (
        lambda: jax.block_until_ready(once(x, kernel)),
        lambda: jax.block_until_ready(both(x, kernel, g)),
    )


def jax_subjects(options: Options, x, kernel, g) -> dict[str, Pair]:
    """The formulations, then dense and grouped convolutions."""
    channels, draw = options.size[-1], np.random.default_rng(1).normal
    pairs = {
        f"prism, {method}": jax_pair(partial(prism_conv, method=method), x, kernel, g)
        for method in options.methods
        if method != "native" or library.loaded()
    }
    for name, groups in (("dense", 1), (f"{options.groups} groups", options.groups)):
        weights = jnp.asarray(draw(size=(3, 3, channels // groups, channels)), x.dtype)
        conv = partial(grouped_conv, groups=groups)
        pairs[f"JAX {name}"] = jax_pair(conv, x, weights, g)
    return pairs


def torch_subjects(options: Options, x, g) -> dict[str, Pair]:
    """The same in torch, or nothing where it is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    channels = options.size[-1]

    def pair(layer, x, g):
        x = x.requires_grad_()

        def gradients():
            return torch.autograd.grad(layer(x), [x, *layer.parameters()], g)

        def forward():
            with torch.no_grad():
                return layer(x)

        return forward, gradients

    flat = [torch.from_numpy(np.array(a)).permute(0, 3, 1, 2) for a in (x, g)]
    deep = [a.contiguous().unsqueeze(1) for a in flat]
    padding = {"padding": 1, "bias": False}
    pairs = {"torch Conv3d": pair(torch.nn.Conv3d(1, 1, 3, **padding), *deep)}
    counts = {"dense": 1, f"{options.groups} groups": options.groups}
    for name, groups in {**counts, "depthwise": channels}.items():
        layer = torch.nn.Conv2d(channels, channels, 3, groups=groups, **padding)
        layer = layer.to(memory_format=torch.channels_last)
        pairs[f"torch {name}"] = pair(layer, *flat)
    return pairs


def burst(run: Run, seconds: float) -> float:
    """Milliseconds a call, over calls that take at least so long."""
    calls, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or not calls:
        run()
        calls += 1
    return 1e3 * elapsed / calls


def check(subjects: dict[str, Pair]) -> None:
    """Compare the gradients of every formulation with the C kernel's."""
    expected = [np.array(a) for a in subjects[LIMIT][1]()]
    for name, (_, gradients) in subjects.items():
        if name.startswith("prism"):
            for wanted, value in zip(expected, gradients(), strict=True):
                value = np.reshape(value, wanted.shape)
                difference = np.abs(value - wanted).max() / np.abs(wanted).max()
                if difference > 1e-4:
                    raise SystemExit(f"error: {name} differs by {difference:.1e}")


def main(options: Options) -> None:
    """Measure and print the table."""
    keep_memory()
    draw = np.random.default_rng(0).normal
    x, g = (draw(size=options.size).astype(np.float32) for _ in range(2))
    kernel = draw(size=(3, 3, 3, 1, 1)).astype(np.float32)
    subjects = {
        **c_subjects(x, kernel, g),
        **jax_subjects(options, *map(jnp.asarray, (x, kernel, g))),
        **torch_subjects(options, x, g),
    }
    check(subjects)
    times: dict[str, tuple[list[float], list[float]]]
    times = {name: ([], []) for name in subjects}
    for number in range(options.bursts + 1):
        for name, pair in subjects.items():
            for run, found in zip(pair, times[name], strict=True):
                milliseconds = burst(run, options.seconds if number else 0.0)
                if number:  # the first call compiles
                    found.append(milliseconds)
    medians = {n: [statistics.median(t) for t in pair] for n, pair in times.items()}
    cores = len(os.sched_getaffinity(0))
    title = f"3x3x3, {'x'.join(map(str, options.size))}, float32, {cores} cores"
    table = Table("", title=title)
    for heading in ("forward (ms)", "/ C", "with gradients (ms)", "/ C"):
        table.add_column(heading, justify="right")
    for name, pair in medians.items():
        cells = []
        for value, limit in zip(pair, medians[LIMIT], strict=True):
            cells += [f"{value:.2f}", f"{value / limit:.2f}"]
        table.add_row(name, *(cells if name != "copy" else [*cells[:2], "", ""]))
    Console().print(table)
    if options.json:
        facts = {
            "size": options.size,
            "cores": cores,
            "processor": platform.processor() or platform.machine(),
            "jax": jax.__version__,
            "milliseconds": medians,
        }
        Path(options.json).write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
