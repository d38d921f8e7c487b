"""The models of the package: found by name, whole, and told of truly."""

import json
from pathlib import Path

import numpy as np
import pytest
from entry_points import load_program, random_model
from flax import nnx
from safetensors.numpy import load_file, save_file

from deepprism_jax.evaluation.pretrained import open_pretrained
from deepprism_jax.export.programs import CLASSES
from deepprism_jax.layers.functional import values_of
from deepprism_jax.models import AutoencoderKL, AutoencoderVQ
from deepprism_jax.models.sinddm import SinDDM
from deepprism_jax.weights import list_pretrained
from deepprism_jax.weights.included import (
    CARD,
    FOLDER,
    METRICS,
    TRAINING,
    located,
)
from deepprism_jax.weights.pretrained import WEIGHTS, class_name, describe, structure_of

ROOT = Path(__file__).parents[2]
MOST_BYTES = 4_750_000
"""Of all models: the wheel stays below 5 MB."""

by_name = pytest.mark.parametrize("name", list_pretrained())


@pytest.fixture(scope="module")
def model_card():
    return load_program("scripts/model_card.py")


def test_there_are_models():
    assert "cifar10-deepprism" in list_pretrained()
    sizes = [f.stat().st_size for f in FOLDER.rglob("*") if f.is_file()]
    assert sum(sizes) < MOST_BYTES


@by_name
def test_a_model_is_whole(name):
    found = open_pretrained(name)
    assert found.step > 0
    cls = CLASSES[class_name(name)]
    description = json.loads((FOLDER / name / "config.json").read_text())
    shapes = structure_of(cls, description, FOLDER / name).shapes
    values = load_file(FOLDER / name / WEIGHTS)
    assert {k: x.shape for k, x in values.items()} == {
        k: x.shape for k, x in shapes.items()
    }
    assert all(np.isfinite(x).all() for x in values.values())


@by_name
def test_its_card_is_made_of_its_files(name, model_card):
    assert (FOLDER / name / CARD).read_text() == model_card.card(FOLDER / name, name)
    for file in (TRAINING, METRICS):
        text = (FOLDER / name / file).read_text()
        assert '"/' not in text, "a path of the machine that trained it"


def test_the_table_of_the_documentation_is_made_of_them(model_card):
    assert model_card.table(FOLDER) in (ROOT / "docs" / "pretrained.md").read_text()


def test_a_directory_of_the_name_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar10-deepprism").mkdir()
    with pytest.raises(FileNotFoundError, match="it hides the model of the package"):
        AutoencoderKL.from_pretrained("cifar10-deepprism")


def test_a_file_of_the_name_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar10-deepprism").touch()
    assert located("cifar10-deepprism") == FOLDER / "cifar10-deepprism"


def test_what_is_not_finished_is_no_model():
    with pytest.raises(FileNotFoundError, match=r"no model 'nope\.part'"):
        AutoencoderKL.from_pretrained("nope.part")


def test_an_unknown_name_is_refused_with_those_that_there_are():
    with pytest.raises(FileNotFoundError, match="perhaps you meant cifar10-deepprism"):
        AutoencoderKL.from_pretrained("cifar10_deepprism")


def test_another_class_is_refused_with_the_one_to_call():
    with pytest.raises(ValueError, match=r"call AutoencoderKL\.from_pretrained"):
        AutoencoderVQ.from_pretrained("cifar10-deepprism")


def test_half_precision_is_widened(tmp_path):
    small = random_model(lambda: SinDDM(width=4, embedding=4, rngs=nnx.Rngs(0)), 0)
    half = {k: np.asarray(x, np.float16) for k, x in values_of(small).items()}
    save_file(half, tmp_path / WEIGHTS)
    (tmp_path / "config.json").write_text(json.dumps(describe(small)))
    found = values_of(SinDDM.from_pretrained(tmp_path))
    for name, value in half.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], value)
