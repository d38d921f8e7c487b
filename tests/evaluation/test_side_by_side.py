"""Runs beside each other: what compares, what does not, and what is refused."""

import io
import re
import shutil
from dataclasses import replace

import pytest
from rich.console import Console

from deepprism_jax.evaluation.records import read_json, write_json
from deepprism_jax.evaluation.side_by_side import load
from deepprism_jax.evaluation.table4 import Row
from deepprism_jax.metrics.state import Score
from deepprism_jax.training.preflight import PreflightError

FACTS = {
    "model": "AutoencoderKL",
    "step": 5,
    "source": "cifar10",
    "path": "/somewhere",
    "name": None,
    "split": "test",
    "images": 10_000,
    "image_size": [32, 32],
    "channels": 3,
    "resize": "cover",
    "deepprism_jax": "0.1",
    "networks": {"inception": {"name": "I", "weights": "0123", "resize": "to 299"}},
    "notes": ["PCA-192 was fitted on 50,000 images"],
}
PAPER_NAMES = ["paper: dense, C = 256", "paper: DeepPrism, C = 256"]
DIFFERENT = "the paper's rows do not compare"


def scores(psnr, *, inception=6.0, splits=10):
    return {
        "psnr": Score(psnr, 2.5, 10_000, "images"),
        "is": Score(inception, 0.1, splits, "splits", 10_000),
    }


BICUBIC = Row("bicubic 4x", scores(21.0, inception=3.0), 0, 192)


@pytest.fixture
def write(tmp_path):
    """Writes the report of a run and returns the run."""

    def write_run(name, psnr=25.0, *, baselines=(BICUBIC,), facts=None, **given):
        rows = [Row("model", scores(psnr, **given), 30_000, 192), *baselines]
        write_json(tmp_path / name / "metrics.json", rows, FACTS | (facts or {}))
        return tmp_path / name

    return write_run


def names(table):
    return [row.method for row in table.rows]


def best(table):
    return {(table.rows[number].method, name) for number, name in table.best}


def test_rows_are_the_papers_the_runs_and_each_baseline_once(write):
    table = load([write("b", 24.5), write("a", 25.5)])
    assert names(table) == [*PAPER_NAMES, "b", "a", "bicubic 4x"]
    dense, prism = PAPER_NAMES
    assert best(table) == {
        ("a", "psnr"),
        (prism, "is"),
        (dense, "kid"),
        (prism, "ps"),
        (prism, "ssim"),
        ("a", "parameters"),
        ("b", "parameters"),
    }
    assert not any("not compare" in line for line in table.lines)
    assert "b, a: PCA-192 was fitted on 50,000 images" in table.lines
    console = Console(file=io.StringIO(), width=200, record=True)
    table.show(console)
    printed = console.export_text()
    assert "25.50 ± 2.50 *" in printed
    assert "24.50 ± 2.50 *" not in printed
    assert "| **25.50 ± 2.50** |" in table.markdown()
    assert "IS: by I, weights 0123, resize: to 299" in printed


def test_figures_equal_as_written_are_equally_good(write):
    table = load([write("a", 25.501), write("b", 25.499)])
    assert {("a", "psnr"), ("b", "psnr")} <= best(table)


def test_nan_is_not_best(write):
    table = load([write("a", float("nan")), write("b", 20.0)])
    assert ("a", "psnr") not in best(table)


def test_the_images_themselves_are_no_method(write):
    images = Row("the images", scores(99.0, inception=11.0), None, None)
    table = load([write("a", baselines=(BICUBIC, images))])
    assert names(table)[-1] == "the images"
    assert "the images" not in {method for method, _ in best(table)}


def test_generated_images_are_no_reconstructions_and_have_no_parameters(write):
    run = write("a")
    known = ("source", "split", "image_size", "deepprism_jax")
    facts = {key: FACTS[key] for key in known}
    facts |= {"images": 5_000, "generated": "samples", "real_images": 10_000}
    row = Row("generated", {"is": Score(5.0, 0.1, 10, "splits", 5_000)}, 0, None)
    write_json(run / "metrics.json", [row], facts)
    table = load([run])
    assert ("paper: DeepPrism, C = 256", "parameters") in best(table)
    assert table.lines[-1] == (
        "a: 5,000 generated images of 32x32 in samples, beside 10,000 of cifar10 split "
        "'test'; deepprism_jax 0.1"
    )
    table = load([run, write("b")])
    kinds = "no figures compare: runs differ in kind (a: generated images; b: recons"
    assert table.lines[0].startswith(kinds)
    # Beside a file of statistics alone there are no real images.
    facts |= {"source": None, "split": None, "real_images": None, "reference": "R"}
    write_json(run / "metrics.json", [row], facts)
    line = "a: 5,000 generated images of 32x32 in samples; deepprism_jax 0.1"
    assert line in load([run]).lines


def test_one_run_stands_beside_the_paper_and_its_baselines(write):
    table = load([write("a")])
    assert names(table) == [*PAPER_NAMES, "a", "bicubic 4x"]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"source": "photos"}, "data (a: cifar10; b: photos)"),
        ({"split": "train"}, "split (a: test; b: train)"),
        ({"images": 2_000}, "images (a: 10,000; b: 2,000)"),
        ({"image_size": [64, 32]}, "size (a: 32x32; b: 64x32)"),
        ({"channels": 1}, "channels (a: 3; b: 1)"),
        ({"resize": "keep"}, "resize (a: cover; b: keep)"),
    ],
)
def test_different_images_compare_in_nothing(facts, words, write):
    table = load([write("a"), write("b", facts=facts)])
    assert table.lines[0] == f"no figures compare: runs differ in {words}"
    alone = load([write("c"), write("d", facts=facts, baselines=())])
    assert names(alone)[-1] == "bicubic 4x (c)"
    # Parameters do not depend on images.
    assert {name for _, name in table.best} == {"parameters"}
    assert names(table)[-2:] == ["bicubic 4x (a)", "bicubic 4x (b)"]


def test_where_a_machine_keeps_a_known_data_set_does_not_matter(write):
    table = load([write("a"), write("b", facts={"path": "/elsewhere"})])
    assert not any("not compare" in line for line in table.lines)
    folder = {"source": "folder", "path": "/one"}
    other = write("d", facts={**folder, "path": "/two"})
    table = load([write("c", facts=folder), other])
    assert "runs differ in data (c: folder /one; d: folder /two)" in table.lines[0]


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ({"weights": "4567"}, "weights (a: 0123; b: 4567)"),
        ({"resize": "to 224"}, "resizes (a: to 299; b: to 224)"),
        ({"name": "J"}, "networks (a: I; b: J)"),
        ({"weights": None}, "weights (a: 0123; b: unknown)"),
    ],
)
def test_different_networks_part_the_metrics_that_they_measure(network, words, write):
    networks = {"inception": FACTS["networks"]["inception"] | network}
    table = load([write("a"), write("b", 24.0, facts={"networks": networks})])
    assert table.lines[0] == f"IS do not compare: runs differ in {words}"
    assert ("a", "psnr") in best(table)
    assert "is" not in {name for _, name in table.best}
    assert not any("IS: by" in line for line in table.lines)


def test_different_samples_part_their_metric(write):
    table = load([write("a"), write("b", splits=5)])
    assert table.lines[0].startswith("IS do not compare: runs differ in samples (a: ")
    assert "is" not in {name for _, name in table.best}


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"reference": "training images"}, "references (a: the images; b: training"),
        ({"kid_subset": 500}, "subset sizes (a: 1,000; b: 500)"),
    ],
)
def test_other_references_and_subsets_part_the_distances(facts, words, write):
    runs = [write("a", facts={"kid_subset": 1_000})]
    runs.append(write("b", facts={"kid_subset": 1_000} | facts))
    for run in runs:
        report = read_json(run / "metrics.json")
        kid = {"kid": Score(0.01, 0.001, 100, "subsets", 10_000)}
        rows = [replace(row, scores=row.scores | kid) for row in report.rows]
        write_json(run / "metrics.json", rows, report.facts)
    table = load(runs)
    assert table.lines[0].startswith(f"KID do not compare: runs differ in {words}")
    assert any("every subset has 1,000 images" in line for line in table.lines)
    assert {"kid", "is"} & {name for _, name in table.best} == {"is"}


def test_the_paper_is_left_out_of_the_best_on_other_images(write):
    facts = {"source": "photos", "images": 57}
    table = load([write("a", 20.0, facts=facts)])
    assert any(line.startswith(DIFFERENT) for line in table.lines)
    assert ("bicubic 4x", "psnr") in best(table)
    assert not any(m.startswith("paper") and n != "parameters" for m, n in best(table))


@pytest.mark.parametrize(
    ("facts", "same"),
    [
        ({"source": "tfds", "name": "cifar10:3.0.2"}, True),
        ({"source": "tfds", "name": "cifar10_corrupted"}, False),
        ({"source": "tfds", "name": "cifar100"}, False),
        ({"images": 9_999}, False),
        ({"resize": "keep"}, True),
    ],
)
def test_the_papers_images_are_the_whole_test_split_of_cifar10(facts, same, write):
    table = load([write("a", facts=facts)])
    assert any(line.startswith(DIFFERENT) for line in table.lines) != same


def test_baselines_with_other_figures_are_told_apart(write):
    more = replace(BICUBIC, scores={**BICUBIC.scores, "fid": BICUBIC.scores["psnr"]})
    fewer = Row("PCA-9", scores(22.0), 10, 9)
    other = Row("PCA-9", scores(23.0), 10, 9)
    one = write("a", baselines=(BICUBIC, fewer))
    table = load([one, write("b", baselines=(more, other)), write("c")])
    assert names(table)[5:] == ["bicubic 4x", "PCA-9 (a)", "PCA-9 (b)"]
    assert "fid" in table.rows[5].scores
    assert "fid" not in {name for _, name in table.best}  # one figure alone


def test_runs_are_named_by_as_little_of_their_paths_as_is_needed(write):
    first, second = write("one/model-eval"), write("two/model-eval")
    assert names(load([first]))[2] == "model"
    assert names(load([first, second]))[2:4] == ["one/model", "two/model"]
    file = shutil.copy(first / "metrics.json", first / "before.json")
    assert names(load([first, file]))[2:4] == ["model", "before"]


def test_an_export_is_found_by_what_lies_beside_it(write):
    beside = write("model-eval")
    export = beside.with_name("model")
    export.mkdir()
    assert names(load([export]))[2] == "model"


def refused(*runs):
    with pytest.raises(PreflightError) as caught:
        load(runs)
    return caught.value.problems


def test_runs_that_cannot_be_compared_are_refused_in_a_line_each(write, tmp_path):
    run = write("a")
    (tmp_path / "my run").mkdir()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "metrics.json").write_text('{"provenance": {}, "methods": []}')
    again = tmp_path / "old" / ".." / "a" / "metrics.json"
    runs = ["nowhere", tmp_path / "my run", tmp_path / "old", run, again]
    nowhere, unevaluated, old, twice = refused(*runs)
    assert nowhere == "nowhere is not there; give the work directory of a run"
    assert unevaluated.endswith(
        f"it has no metrics.json; first run python eval.py '{tmp_path}/my run'"
    )
    assert re.search("has format 1, not 2; evaluate the run again", old)
    assert twice == f"{again} is named twice; name every run once"


def test_no_run_is_refused():
    assert refused() == ("no run is named; give work directories that are evaluated",)
