"""Every command of the tutorial runs, in its order, and prints what stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"


def blocks(text):
    """Return the blocks that are run, each with the output below it or nothing."""
    pattern = r"^```(bash|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```)?"
    return re.findall(pattern, text, re.M | re.S)


def words(line):
    """Return what stays the same from run to run: no digits, spaces or frames."""
    line = re.sub(r"\+g[0-9a-f]{7,}[.\w]*", "", line)  # the version of a clone
    return re.sub(r"[\d.,\s│┃|*+±-]+", " ", line).strip()


def run(language, code, environment, folder):
    command = ["bash", "-euo", "pipefail", "-c", code]
    if language == "python":
        command = [sys.executable, "-c", code]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path):
    # As in a clone: runs are made beside the programs, but not in this one.
    for name in ("train.py", "eval.py", "sample.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = dict(os.environ, COLUMNS="120")
    for name in ("DEEPPRISM_NATIVE", "DEEPPRISM_WEIGHTS"):
        environment.pop(name, None)  # of the tests of this process
    programs = str(Path(sys.executable).parent)
    environment["PATH"] = programs + os.pathsep + environment["PATH"]
    found = blocks(PAGE.read_text(encoding="utf-8"))
    assert len(found) >= 7
    for language, code, expected in found:
        status, printed = run(language, code, environment, tmp_path)
        print(f"{code}{printed}")  # shown where it fails
        assert status == 0
        there = {words(line) for line in printed.splitlines()}
        missing = [line for line in expected.splitlines() if words(line) not in there]
        assert missing == []


def test_frames_and_figures_may_differ_and_words_may_not():
    assert words("│ model │ 25.4 ± 2.5 │") == words("| model | 7.0 ± 1.25 |")
    assert words("wrote a.png") != words("wrote b.png")
