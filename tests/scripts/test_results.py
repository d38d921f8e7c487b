"""The page of results is that of the records, and a record that of its run."""

import importlib
import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CONFIG = {
    "model": {"conv": "deepprism", "width": 64, "attention": False},
    "data": {"source": "cifar10", "path": "/home/me/cifar-10-batches-bin"},
    "train": {"steps": 20, "batch_size": 8, "seed": 3},
}
LINES = [
    {"step": 0, "time": 100.0, "text": "devices: 1 x cpu (cpu) in 1 process"},
    {"step": 0, "time": 101.0, "text": "parameters: encoder 1,234, decoder 766"},
    {"step": 10, "time": 130.0, "eval/psnr": 20.5, "eval/psnr_std": 2.0},
    {"step": 10, "time": 131.0, "text": "devices: 2 x cpu (cpu) in 1 process"},
    {"step": 20, "time": 191.0, "eval/psnr": 21.25, "eval/psnr_std": 2.0},
]
FACTS = {"source": "cifar10", "split": "test", "images": 4, "image_size": [32, 32]}


@pytest.fixture
def results(monkeypatch, tmp_path):
    """The program, with records of its own."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    results = importlib.import_module("results")
    results_records = importlib.import_module("results_records")
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    reader = lambda: results_records.read(tmp_path / "results" / "runs")  # noqa: E731
    monkeypatch.setattr(results, "read", reader)
    writer = results_records.write
    monkeypatch.setattr(
        results, "write", lambda record: writer(record, tmp_path / "results" / "runs")
    )
    monkeypatch.setattr(results, "ROOT", tmp_path)
    return results


def make_run(folder, psnr, seed=3, width=64):
    folder.mkdir()
    config = {**CONFIG, "train": {**CONFIG["train"], "seed": seed}}
    config["model"] = {**CONFIG["model"], "width": width}
    (folder / "config.json").write_text(json.dumps({"config": config}))
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, LINES)))
    score = {"value": psnr, "std": 2.0, "count": 4, "over": "images"}
    method = {"method": "model", "psnr": score, "parameters": 2000, "code": 192}
    report = {"provenance": FACTS, "methods": [method]}
    (folder / "metrics.json").write_text(json.dumps(report))
    return str(folder)


def test_the_page_is_that_of_the_records(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    results = importlib.import_module("results")
    # tests/analysis/test_table3.py shows that these are the counts, in more time.
    counts = {"dense": lambda c: 386 * c**2 + 271 * c + 63}
    counts["deepprism"] = lambda c: 221 * c + 1271
    count = lambda width, kind: counts[kind](width)  # noqa: E731
    monkeypatch.setattr(results.tables, "autoencoder_parameters", count)
    assert results.main(["--check"]) == 0, capsys.readouterr().out


def test_a_record_has_what_the_run_left(results, tmp_path):
    run = make_run(tmp_path / "run", 21.5)
    assert results.main(["add", run, "--name", "narrow", "--group", "g"]) == 0
    (row,) = results.read().values()
    record = row.first
    assert record.command == (
        "python train.py cifar10_deepprism --model.width 64 --model.no-attention "
        "--data.path cifar-10-batches-bin --train.steps 20 --train.seed 3 "
        "--workdir runs/narrow"
    )
    assert (record.seed, record.steps, record.parameters) == (3, 20, 2000)
    assert record.seconds == 90.0  # 30 before it was resumed and 60 after
    assert record.curve["eval/psnr"] == [[10, 20.5, 30], [20, 21.25, 90]]
    assert record.config["data"]["path"] == "cifar-10-batches-bin"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("config.json", "{}", "config.json is not that of a run of train.py"),
        ("metrics.jsonl", "", "metrics.jsonl has no step yet"),
        ("metrics.jsonl", "{", "metrics.jsonl is no JSON"),
    ],
)
def test_what_is_no_run_is_refused(results, tmp_path, capsys, file, text, message):
    run = make_run(tmp_path / "run", 21.5)
    (tmp_path / "run" / file).write_text(text)
    assert results.main(["add", run, "--name", "narrow", "--group", "g"]) == 2
    assert message in capsys.readouterr().err


def test_seeds_are_one_row_and_other_differences_are_refused(results, tmp_path, capsys):
    for seed, psnr in ((0, 24.0), (1, 25.0)):
        run = make_run(tmp_path / f"run{seed}", psnr, seed)
        assert results.main(["add", run, "--name", "a", "--group", "g"]) == 0
    page = results.Page(results.read())
    table = page.on_runs("g", columns="psnr,seeds")
    assert "| a | 24.50 ± 2.00 | 2 (± 0.71) |" in table
    table = page.on_runs("g", columns="psnr,seeds", seed="1")
    assert "| a | 25.00 ± 2.00 | 1 |" in table
    with pytest.raises(ValueError, match="a has no record of seed 7"):
        page.on_runs("g", columns="psnr", seed="7")
    wide = make_run(tmp_path / "wide", 26.0, seed=2, width=128)
    assert results.main(["add", wide, "--name", "a", "--group", "g"]) == 2
    assert "model.width (64 and 128)" in capsys.readouterr().err
    assert results.main(["add", run, "--name", "a", "--group", "g"]) == 2
    assert "is there already; --replace it" in capsys.readouterr().err


def test_figures_on_other_images_do_not_share_a_table(results, tmp_path):
    for name, images in (("a", 4), ("b", 5)):
        run = tmp_path / name
        make_run(run, 21.0)
        report = json.loads((run / "metrics.json").read_text())
        report["provenance"]["images"] = images
        (run / "metrics.json").write_text(json.dumps(report))
        assert results.main(["add", str(run), "--name", name, "--group", "g"]) == 0
    with pytest.raises(ValueError, match="a, b differ in images"):
        results.Page(results.read()).on_runs("g", columns="psnr")


def test_a_plot_of_other_figures_is_stale(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    plots = importlib.import_module("results_plots")
    make = lambda end: plots.Plot("t", "x", "y", [plots.Series("a", [1.0], [end])])  # noqa: E731
    plot = make(3.0)
    assert not plot.is_drawn(tmp_path / "plot.png")
    plot.draw(tmp_path / "plot.png")
    assert plot.is_drawn(tmp_path / "plot.png")
    assert not make(4.0).is_drawn(tmp_path / "plot.png")


def test_what_means_nothing_is_refused_in_one_line(
    results, tmp_path, monkeypatch, capsys
):
    shutil.copytree(ROOT / "results" / "runs", tmp_path / "results" / "runs")
    monkeypatch.setattr(results, "TEMPLATE", tmp_path / "template.md")
    for text, error in (
        ("{{rnus cifar10 columns=psnr}}", "means nothing"),
        ("{{runs cifar11 columns=psnr}}", "no record or group is called cifar11"),
        ("{{value cifar10_pca fid}}", "cifar10_pca has no fid"),
        ("{{table none}}", "none.json"),
    ):
        (tmp_path / "template.md").write_text(text)
        assert results.main([]) == 2
        printed = capsys.readouterr().err
        assert error in printed
        assert printed.count("\n") == 1
