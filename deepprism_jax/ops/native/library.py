"""Where the compiled kernels lie, how they are compiled and made known to JAX."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from deepprism_jax.files import cache_directory
from deepprism_jax.ops import target

HEADERS = ("vector.h", "scratch.h", "taps.h", "silu.h", "moments.h")
SOURCES = ("prism.cc", "group_norm.cc", "half_block.cc", "depthwise.cc")
HANDLERS = (
    "deepprism_prism",
    "deepprism_group_norm",
    "deepprism_group_norm_gradient",
    "deepprism_half_block",
    "deepprism_half_block_gradient",
    "deepprism_moments",
    "deepprism_depthwise",
)
COMPILERS = ("c++", "g++", "clang++")
LANES = 16
"""Channels of one vector of the kernels."""

BUILD = "python -m deepprism_jax.ops.native"

_HERE = Path(__file__).parent


class BuildError(RuntimeError):
    """The kernels could not be compiled; the message says why."""


def path() -> Path:
    """Return where the compiled kernels of this source, jaxlib and processor lie."""
    key = hashlib.sha256()
    for source in (*HEADERS, *SOURCES):
        key.update((_HERE / source).read_bytes())
    key.update(f"{version('jaxlib')} {processor()}".encode())
    return cache_directory() / f"kernels-{key.hexdigest()[:16]}.so"


def processor() -> str:
    """Return what a program compiled for this very processor depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    flags = [line for line in lines if line.startswith(("flags", "Features"))]
    return " ".join([platform.machine(), *flags[:1]])


def find_compiler() -> str:
    """Return the C++ compiler that CXX names, or the first that is installed.

    Raises:
        BuildError: there is none.
    """
    compiler = os.environ.get("CXX") or next(filter(shutil.which, COMPILERS), None)
    if compiler is None:
        raise BuildError(
            f"no C++ compiler was found (tried {', '.join(COMPILERS)}); install one, "
            "for example Debian's package g++, or name it in CXX"
        )
    return compiler


def build() -> Path:
    """Compile the kernels for this machine and return where they lie.

    Raises:
        BuildError: there is no C++ compiler, or it fails.
    """
    compiler, kernels = find_compiler(), path()
    tuning = "-mcpu=native" if platform.machine() == "arm64" else "-march=native"
    try:
        kernels.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kernels.parent) as scratch:
            built = Path(scratch) / kernels.name
            command = [compiler, "-std=c++17", "-O3", tuning, "-shared", "-fPIC", "-w"]
            command += ["-isystem", jax.ffi.include_dir(), "-o", str(built)]
            command += [str(_HERE / source) for source in SOURCES]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise BuildError(f"{compiler} failed:\n{done.stderr.strip()}")
            built.replace(kernels)  # at once: another process may be reading
    except OSError as error:
        raise BuildError(f"the kernels could not be built: {error}") from error
    return kernels


def takes(depth: int, dtype: Any) -> bool:
    """Return whether the kernels take so many neighbouring channels of a type."""
    return depth % LANES == 0 and dtype in (jnp.float32, jnp.bfloat16)


def loaded() -> bool:
    """Return whether the kernels are there, for a program of this machine.

    `DEEPPRISM_NATIVE=0` in the environment does without them.
    """
    return target.is_here() and register()


@functools.cache
def register() -> bool:
    """Make the kernels known to JAX, once, and return whether they are there."""
    if os.environ.get("DEEPPRISM_NATIVE") == "0":
        return False
    try:
        library = ctypes.CDLL(str(path()))
    except OSError:
        return False
    for name in HANDLERS:
        handler = jax.ffi.pycapsule(getattr(library, name))
        jax.ffi.register_ffi_target(name, handler, platform="cpu")
    return True
