"""The commands in the documentation are understood, and every option is explained."""

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from deepprism_jax.sampling.options import Options
from deepprism_jax.training.cli import read
from deepprism_jax.weights import list_pretrained

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "sampling.md"


@pytest.mark.parametrize("page", [ROOT / "README.md", PAGE], ids=lambda page: page.name)
def test_commands_are_understood(page):
    lines = re.findall(r"^python sample\.py (.*)$", page.read_text(), re.MULTILINE)
    assert lines
    for line in lines:
        options = read(Options, shlex.split(line, comments=True), prog="sample.py")
        if options.pretrained:
            assert options.run is None
            assert options.pretrained in list_pretrained()
        else:
            assert options.run is not None


def test_every_option_is_explained():
    said = set(re.findall(r"`--(?:no-)?([a-z-]+)", PAGE.read_text()))
    assert {field.name.replace("_", "-") for field in fields(Options)} - said == {"run"}
