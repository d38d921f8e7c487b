"""The commands of records and cards train what was trained."""

import importlib
import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def refresh(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("refresh_commands")


def test_every_command_is_that_of_its_run(refresh, capsys):
    assert refresh.main(["--check"]) == 0, capsys.readouterr().out


def test_what_is_stale_is_written_anew(refresh, monkeypatch, tmp_path, capsys):
    records, models = tmp_path / "runs", tmp_path / "models"
    records.mkdir()
    name = "figure1_width32-seed0.json"
    stale = (refresh.RECORDS / name).read_text().replace("--model.width 32 ", "")
    (records / name).write_text(stale)
    model = "cifar10-deepprism-fields4"
    shutil.copytree(refresh.included.FOLDER / model, models / model)
    training, card = models / model / "training.json", models / model / "README.md"
    truth = training.read_text(), card.read_text()
    training.write_text(truth[0].replace("--model.fields 4 ", ""))
    card.write_text(truth[1].replace("--model.fields 4 ", ""))
    monkeypatch.setattr(refresh, "ROOT", tmp_path)
    monkeypatch.setattr(refresh, "RECORDS", records)
    monkeypatch.setattr(refresh.included, "FOLDER", models)

    assert refresh.main(["--check"]) == 1
    assert (records / name).read_text() == stale
    assert refresh.main([]) == 0
    assert "--model.width 32 " in json.loads((records / name).read_text())["command"]
    assert (training.read_text(), card.read_text()) == truth
    assert refresh.main(["--check"]) == 0
    assert name in capsys.readouterr().out
