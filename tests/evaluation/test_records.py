"""JSON and CSV hold every figure in full, and a damaged file is refused."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from deepprism_jax.evaluation.records import FIELDS, read_json, write_csv, write_json
from deepprism_jax.evaluation.table4 import Row
from deepprism_jax.files import replacing
from deepprism_jax.metrics.state import Score

PSNR = Score(24.104212345678, 2.4961, 10_000, "images")
ROWS = [
    Row(
        "model",
        {"psnr": PSNR, "kid": Score(0.01794, 0.0011, 100, "subsets", 9_000)},
        57847,
        192,
    ),
    Row("bicubic 4x", {"psnr": Score(21.14, None, 10_000, "images")}, 0, 192),
]
FACTS = {
    "model": "AutoencoderKL",
    "step": 5,
    "source": "cifar10",
    "split": "test",
    "images": 10_000,
    "image_size": [32, 48],
    "deepprism_jax": "0.1",
    "networks": {"inception": {"weights": "0123", "resize": "to 299, bilinear"}},
}


def test_json_holds_every_figure_in_full(tmp_path):
    path = tmp_path / "new" / "metrics.json"
    write_json(path, ROWS, {"step": 5, "split": "test"})
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["provenance"] == {"step": 5, "split": "test"}
    assert [method["method"] for method in report["methods"]] == ["model", "bicubic 4x"]
    assert report["methods"][0]["psnr"] == PSNR._asdict()
    assert report["methods"][0]["parameters"] == 57847
    assert report["methods"][1]["psnr"]["std"] is None


def test_json_is_read_again_as_it_was(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, ROWS, FACTS)
    assert read_json(path) == (ROWS, FACTS)


def test_json_takes_what_python_has_and_it_has_not(tmp_path):
    path = tmp_path / "metrics.json"
    rows = [Row("é", {"psnr": Score(math.nan, None, 1, "images")}, 1, None)]
    facts = {**FACTS, "path": Path("a/b"), "images": np.int64(3), "image_size": (8, 8)}
    write_json(path, rows, facts)
    assert "NaN" not in path.read_text(encoding="utf-8")
    read = read_json(path)
    assert math.isnan(read.rows[0].scores["psnr"].value)
    assert (read.rows[0].method, read.rows[0].code) == ("é", None)
    assert (read.facts["path"], read.facts["images"]) == ("a/b", 3)


def test_csv_has_a_line_a_method_and_metric_with_all_behind_it(tmp_path):
    path = tmp_path / "metrics.csv"
    write_csv(path, ROWS, FACTS | {"kid_subset": 1000})
    with path.open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert tuple(read[0]) == FIELDS
    assert [(line["method"], line["metric"]) for line in read] == [
        ("model", "psnr"),
        ("model", "kid"),
        ("model", "parameters"),
        ("model", "code"),
        ("bicubic 4x", "psnr"),
        ("bicubic 4x", "parameters"),
        ("bicubic 4x", "code"),
    ]
    shared = {"source": "cifar10", "split": "test", "image_size": "32x48"}
    shared |= {"step": "5", "deepprism_jax": "0.1", "name": ""}
    assert (read[0]["reference"], read[0]["kid_subset"]) == ("", "")
    assert read[1] == shared | {
        "reference": "the images",
        "kid_subset": "1000",
        "method": "model",
        "metric": "kid",
        "value": "0.01794",
        "std": "0.0011",
        "count": "100",
        "over": "subsets",
        "images": "9000",
        "network": "inception",
        "weights": "0123",
        "resize": "to 299, bilinear",
    }
    assert float(read[0]["value"]) == PSNR.value
    assert (read[0]["images"], read[0]["network"]) == ("10000", "")
    assert (read[4]["std"], read[2]["value"]) == ("", "57847")


def damaged(change):
    report = {
        "format": 2,
        "provenance": dict(FACTS),
        "methods": [{"method": "model", "parameters": 1, "code": 2}],
    }
    change(report)
    return json.dumps(report)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (damaged(lambda report: report.pop("format")), "has format 1, not 2"),
        (damaged(lambda report: report.update(format=3)), "has format 3, not 2"),
        (damaged(lambda report: report.pop("methods")), "is damaged .no 'methods'"),
        (damaged(lambda report: report.update(methods=[])), "it has no methods"),
        (damaged(lambda report: report.update(methods=[3])), "is damaged"),
        (damaged(lambda r: r["methods"][0].update(psnr={"x": 1})), "is damaged"),
        (damaged(lambda r: r["provenance"].pop("images")), "lacks images"),
        ("[1]", "cannot be read"),
        ('{"format": 2, "prov', "cannot be read .Unterminated string"),
        ("", "cannot be read"),
    ],
)
def test_a_report_that_cannot_be_read_is_refused(content, message, tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_json(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).endswith("; evaluate the run again with eval.py")
    assert "\n" not in str(caught.value)


def test_a_file_is_replaced_at_the_end_or_not_at_all(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("before")

    def broken_off():
        with replacing(path) as part:
            part.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken_off()
    assert path.read_text() == "before"
    with replacing(path) as part:
        part.write_text("whole")
        assert path.read_text() == "before"
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_what_json_cannot_hold_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, ROWS, FACTS)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_json(path, ROWS, {"bad": object()})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
