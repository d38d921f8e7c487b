"""What is declared agrees: requirements, extras, imports, and the reasons given."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import deepprism_jax
from deepprism_jax.weights.included import FOLDER
from deepprism_jax.weights.registry import entry

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

MODULES = {
    "orbax-checkpoint": "orbax",
    "pillow": "PIL",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
}
"""Where a distribution and its module are not called alike."""

NOT_IMPORTED = {
    "flatbuffers",  # jax.export imports it and does not ask for it
    "importlib-resources",  # TFDS imports it and does not ask for it
    "scikit-learn",  # photographs, read as files
}


def name_of(requirement):
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]


def module_of(distribution):
    return MODULES.get(distribution, distribution.replace("-", "_"))


def shipped_sources():
    return [*ROOT.glob("*.py"), *ROOT.glob("configs/*.py"), *package_sources()]


def package_sources():
    return sorted((ROOT / "deepprism_jax").rglob("*.py"))


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def test_requirements_are_those_of_the_package():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    assert listed == PROJECT["dependencies"]


@pytest.mark.parametrize("extra", ["tpu", "cuda"])
def test_accelerators_take_the_same_jax(extra):
    (jax,) = (r for r in PROJECT["dependencies"] if name_of(r) == "jax")
    (accelerated,) = PROJECT["optional-dependencies"][extra]
    assert re.sub(r"\[.*\]", "", accelerated) == jax


def test_the_package_of_weights_is_the_one_that_is_looked_for():
    package = entry("efficientnet_lite0").package
    assert PROJECT["optional-dependencies"]["lite0"] == [package]


def test_every_import_is_declared():
    late = PROJECT["optional-dependencies"]["onnx"]  # where it is needed alone
    declared = {module_of(name_of(r)) for r in [*PROJECT["dependencies"], *late]}
    own = {"deepprism_jax", "configs"}
    undeclared = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in shipped_sources()
        for module in imported_modules(path)
        if module not in declared | own | set(sys.stdlib_module_names)
    }
    assert undeclared == set()


def test_every_dependency_is_needed():
    imported = {m for path in shipped_sources() for m in imported_modules(path)}
    idle = {
        name
        for name in map(name_of, PROJECT["dependencies"])
        if module_of(name) not in imported
    }
    assert idle == NOT_IMPORTED


def test_every_dependency_has_its_reason():
    text = (ROOT / "docs" / "dependencies.md").read_text()
    extras = PROJECT["optional-dependencies"]
    requirements = [*PROJECT["dependencies"]]
    for extra in ("dev", "bench", "gcs", "onnx", "lite0"):
        requirements += extras[extra]
    explained = set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))
    assert explained == {name_of(r) for r in requirements}


def test_the_package_is_typed_and_knows_its_version():
    assert (ROOT / "deepprism_jax" / "py.typed").is_file()
    assert re.fullmatch(r"\d+\.\d+\.\d+", deepprism_jax.__version__)


def test_every_folder_of_the_package_is_a_package():
    folders = {path.parent for path in package_sources()}
    assert [f for f in sorted(folders) if not (f / "__init__.py").is_file()] == []


@pytest.mark.slow
def test_the_wheel_has_the_pretrained_models_and_stays_small(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    try:
        import hatchling  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        # `build` makes an environment with hatchling, for which it needs an index.
        build = [sys.executable, "-m", "build", "--wheel", "-o", tmp_path]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 5_000_000
    there = set(zipfile.ZipFile(wheel).namelist())
    models = {f"deepprism_jax/{file.relative_to(FOLDER.parent)}" for file in _models()}
    assert len(models) > 4
    assert models <= there
    assert not any(name.startswith(("tests/", "configs/")) for name in there)


def _models():
    return [path for path in FOLDER.rglob("*") if path.is_file()]
