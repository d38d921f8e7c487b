"""Another malloc for a program: started anew once, as it was, and told."""

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deepprism_jax.training import allocator, summary

SCRIPT = """
import json, os, sys
from deepprism_jax.training.allocator import allocator, start_with_tcmalloc
print("started", flush=True)
start_with_tcmalloc()
told = os.environ.get("LD_PRELOAD")
print(json.dumps([os.getpid(), told, allocator(), sys.argv[1:], sys.flags.dev_mode]))
"""
CHANGED = ("LD_PRELOAD", "LD_LIBRARY_PATH", allocator.OPT_OUT)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with a library of that name; what it does is of no matter here."""
    try:
        ctypes.CDLL("libm.so.6")
    except OSError:
        pytest.skip("this C library is not glibc")
    loaded = Path("/proc/self/maps").read_text()
    found = re.search(r"/\S*/libm[.-]\S*", loaded)
    assert found
    folder = tmp_path_factory.mktemp("lib")
    shutil.copy(found[0], folder / "libtcmalloc_minimal.so.4")
    return folder


def surroundings(variables):
    """The environment, with these variables and no others of those that matter."""
    kept = {name: value for name, value in os.environ.items() if name not in CHANGED}
    return {**kept, **variables}


def start(folder, **variables):
    """Run the script; return how often it started, and what it found."""
    (folder / "program.py").write_text(SCRIPT)
    command = [sys.executable, "-X", "dev", str(folder / "program.py"), "--name", "a b"]
    process = subprocess.Popen(
        command, env=surroundings(variables), stdout=subprocess.PIPE, text=True
    )
    out, _ = process.communicate(timeout=60)
    *starts, last = out.splitlines()
    pid, preloaded, used, arguments, dev_mode = json.loads(last)
    assert pid == process.pid
    assert arguments == ["--name", "a b"]
    assert dev_mode
    return len(starts), preloaded, used


def test_a_program_starts_anew_once_and_as_it_was(installed):
    found = start(installed, LD_LIBRARY_PATH=str(installed))
    assert found == (2, "libtcmalloc_minimal.so.4", "TCMalloc")


def test_what_else_is_preloaded_stays(installed):
    variables = {"LD_LIBRARY_PATH": str(installed), "LD_PRELOAD": "libm.so.6"}
    found = start(installed, **variables)
    assert found == (2, "libm.so.6 libtcmalloc_minimal.so.4", "TCMalloc")


@pytest.mark.parametrize("variable", [allocator.OPT_OUT, "LD_PRELOAD"])
def test_another_choice_is_left_alone(installed, variable):
    value = "0" if variable == allocator.OPT_OUT else "libtcmalloc_minimal.so.4"
    found = start(installed, **{"LD_LIBRARY_PATH": str(installed), variable: value})
    preloaded, used = (None, "glibc") if value == "0" else (value, "TCMalloc")
    assert found == (1, preloaded, used)


@pytest.mark.parametrize(
    "lines",
    [
        "import sys; sys.orig_argv = ['python', '-m', 'ipykernel_launcher', '-f', 'x']",
        "import sys; sys.settrace(lambda *_: None)",
        "import sys; sys.modules['pydevd'] = sys",
    ],
    ids=["notebook", "tracer", "debugger"],
)
def test_a_process_of_another_program_is_left_alone(installed, monkeypatch, lines):
    monkeypatch.setattr(sys.modules[__name__], "SCRIPT", f"{lines}\n{SCRIPT}")
    found = start(installed, LD_LIBRARY_PATH=str(installed))
    assert found == (1, None, "glibc")


def test_a_program_read_from_a_pipe_is_left_alone(installed):
    run = subprocess.run(
        [sys.executable, "-"],
        input=SCRIPT,
        env=surroundings({"LD_LIBRARY_PATH": str(installed)}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.count("started") == 1
    assert '"glibc"' in run.stdout


def test_without_the_library_nothing_happens(monkeypatch):
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.delenv(allocator.OPT_OUT, raising=False)
    monkeypatch.setattr(allocator, "_owns_process", lambda: True)
    monkeypatch.setattr(allocator, "_TCMALLOC", ("libnot-there.so",))
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("started anew"))
    allocator.start_with_tcmalloc()


def test_a_library_that_the_loader_did_not_find_is_not_told(monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "libjemalloc-of-nowhere.so")
    assert allocator.allocator() in ("glibc", None)


@pytest.mark.parametrize(
    ("used", "lines"),
    [
        (None, []),
        ("TCMalloc", ["malloc: TCMalloc"]),
        ("glibc", [f"malloc: glibc; {allocator.HINT}"]),
    ],
)
def test_malloc_in_words(monkeypatch, used, lines):
    monkeypatch.setattr(summary, "allocator", lambda: used)
    assert summary.malloc_lines() == lines
