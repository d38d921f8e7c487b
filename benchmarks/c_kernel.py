"""The C kernel of `limit.c`, compiled on the spot and called without a framework."""

import ctypes
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from timing import Pair, cores

from deepprism_jax.ops.native import library

LANES = 16
"""Channels of one vector of the kernel."""


def subjects(x: np.ndarray, kernel: np.ndarray, g: np.ndarray) -> dict[str, Pair]:
    """A copy of the array, and the convolution forward and with both gradients.

    Args:
        x, g: input and output gradient, float32 [B, H, W, C].
        kernel: float32 [3, 3, 3, 1, 1].
    """
    limit = _compile()
    y, dx, dk = np.empty_like(x), np.empty_like(x), np.empty_like(kernel)

    def call(function: Any, *arrays: np.ndarray) -> None:
        pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in arrays]
        function(*pointers, *map(ctypes.c_int, x.shape))

    def forward():
        call(limit.forward, x, kernel, y)
        return (y,)

    def gradients():
        forward()
        call(limit.input_gradient, g, kernel, dx)
        call(limit.kernel_gradient, x, g, dk)
        return y, dx, dk

    def copy():
        pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (x, y)]
        limit.copy(*pointers, ctypes.c_size_t(x.size))

    return {"copy": (copy, copy), "C kernel": (forward, gradients)}


def _compile() -> ctypes.CDLL:
    try:
        compiler = library.find_compiler()
    except library.BuildError as error:
        raise SystemExit(f"error: {error}") from None
    os.environ["OMP_NUM_THREADS"] = str(cores())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "limit.so"
        flags = ["-x", "c", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"]
        source = Path(__file__).with_name("limit.c")
        subprocess.run([compiler, *flags, str(source), "-o", str(path)], check=True)
        return ctypes.CDLL(str(path))
