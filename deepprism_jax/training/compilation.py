"""Compiled programs are kept in the work directory: a resumed run need not compile.

JAX's own cache (`jax_compilation_cache_dir`) does the work: process 0 writes, all read,
and what a program depends on is in its key: itself, its options, versions of JAX and
the compiler, and the devices. For CPUs it does not say of which processor they are,
though what is compiled holds its instructions, so each kind of processor has a folder
of its own here; and there the keys of several processes differ, so only process 0 finds
what it has written.
"""

import contextlib
import hashlib
import os
import zlib
from collections.abc import Iterator

import jax
from etils import epath
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from deepprism_jax.ops.native.library import processor
from deepprism_jax.paths import is_remote

FOLDER = "cache"
LEAST_SECONDS = 0.2
"""Programs that took less to compile are not kept: reading them would take as long."""


@contextlib.contextmanager
def keep_programs(workdir: epath.PathLike) -> Iterator[None]:
    """Keep what is compiled meanwhile in WORKDIR/cache, and take it from there.

    Where the user has named another folder (`JAX_COMPILATION_CACHE_DIR`), that is used.
    What cannot be read or written costs a warning and the time to compile.
    """
    options = {
        "jax_compilation_cache_dir": os.fspath(cache_folder(workdir)),
        "jax_persistent_cache_min_compile_time_secs": LEAST_SECONDS,
    }
    before = {name: getattr(jax.config, name) for name in options}
    if before["jax_compilation_cache_dir"] is not None:
        yield
        return
    if jax.process_index() == 0:
        drop_damaged(options["jax_compilation_cache_dir"])
    try:
        for name, value in options.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        jax_cache.reset_cache()


def cache_folder(workdir: epath.PathLike) -> epath.Path:
    """Return where programs for the devices of this process are kept."""
    folder = epath.Path(workdir) / FOLDER
    if jax.default_backend() == "cpu":
        folder /= f"cpu-{hashlib.sha256(processor().encode()).hexdigest()[:16]}"
    return folder


def drop_damaged(folder: epath.PathLike) -> None:
    """Delete entries that a process was killed while writing.

    JAX would warn of one at every start and never write it anew. In a bucket there are
    none: an object appears whole or not at all.
    """
    if is_remote(folder):
        return
    for entry in epath.Path(folder).glob("*-cache"):
        with contextlib.suppress(OSError):
            if _damaged(entry.read_bytes()):
                entry.unlink()


def _damaged(entry: bytes) -> bool:
    # Where the package zstandard is installed, JAX packs by it: that is not looked at.
    if entry[:1] == b"\x28":
        return False
    try:
        zlib.decompress(entry)
    except zlib.error:
        return True
    return False
