"""The documentation is true where a program can tell: commands, names, links, code."""

import pkgutil
import re
from dataclasses import replace
from pathlib import Path

import pytest
from flax import nnx

from configs import CONFIGS
from deepprism_jax.training.autoencoder.networks import make_autoencoder
from deepprism_jax.training.config import Config
from deepprism_jax.training.systems import CONFIGS as SYSTEMS

ROOT = Path(__file__).parents[1]
AT_THE_TOP = [ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING")]
PAGES = [*AT_THE_TOP, *sorted((ROOT / "docs").glob("*.md"))]
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def code_blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


@by_page
def test_links_lead_to_files(page):
    targets = re.findall(r"(?<!!)\[[^\]]+\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [t for t in targets if not (page.parent / t).exists()] == []


@by_page
def test_options_are_fields_of_the_config(page):
    unknown = []
    for group, option in re.findall(r"--(\w+)\.([a-z0-9-]+)", page.read_text()):
        name = option.removeprefix("no-").replace("-", "_")
        groups = [getattr(system(), group, None) for system in SYSTEMS.values()]
        if not any(hasattr(found, name) for found in groups):
            unknown.append(f"--{group}.{option}")
    # docs/configuration.md misspells one on purpose, and nested.override is no field.
    assert set(unknown) <= {"--modle.width", "--nested.override"}


@by_page
def test_experiments_are_there(page):
    named = re.findall(r"train\.py ([a-z0-9_]+)", page.read_text())
    assert set(named) <= set(CONFIGS)


def test_every_experiment_is_described():
    text = (ROOT / "docs" / "configuration.md").read_text()
    table = text[text.index("| experiment |") : text.index("| group |")]
    assert set(re.findall(r"^\| `(\w+)`", table, re.M)) == set(CONFIGS)


def test_readme_sets_up_everything_in_two_commands():
    lines = "".join(code_blocks(ROOT / "README.md", "bash")).splitlines()
    commands = [line for line in lines if line.startswith("python3 -m venv .venv && ")]
    assert [line.split(" && ")[2] for line in commands] == [
        ".venv/bin/python train.py quickstart",
        ".venv/bin/python -m pytest -n auto",
    ]


def test_readme_code_runs(tmp_path, monkeypatch):
    config = CONFIGS["quickstart"].get_config()
    narrow = replace(config, model=replace(config.model, width=32))
    model = make_autoencoder(narrow, nnx.Rngs(0))
    model.save_pretrained(tmp_path / "runs" / "quickstart" / "model")
    monkeypatch.chdir(tmp_path)
    (code,) = code_blocks(ROOT / "README.md", "python")
    names = {}
    exec(code, names)
    shapes = re.findall(r"^(\w+) = .*# (\[[\d, ]+\])$", code, re.M)
    assert [name for name, _ in shapes] == ["z", "pictures"]
    for name, shape in shapes:
        assert str(list(names[name].shape)) == shape
    assert names["y"].shape == (4, 8, 8, 64)
    assert (tmp_path / "my-model" / "model.safetensors").is_file()


def test_readme_says_how_long_the_code_of_the_quick_start_is():
    config = CONFIGS["quickstart"].get_config()
    position = 4**config.model.downsamples * config.data.channels
    ratio, rest = divmod(position, config.model.z_channels)
    assert rest == 0
    text = (ROOT / "README.md").read_text()
    assert f"whose code of an image is {ratio} times smaller in numbers" in text


def test_the_new_experiment_is_a_config():
    (code,) = code_blocks(ROOT / "docs" / "configuration.md", "python")
    names = {}
    exec(code, names)
    assert isinstance(names["get_config"](), Config)


def test_symbols_of_the_paper_exist():
    text = (ROOT / "docs" / "paper.md").read_text()
    packages = "ops|layers|losses|models|metrics|training"
    symbols = re.findall(rf"`((?:{packages})(?:\.\w+)+)`", text)
    assert len(symbols) > 15
    for symbol in symbols:
        pkgutil.resolve_name(f"deepprism_jax.{symbol}")
