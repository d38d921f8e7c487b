"""The table and the JSON say the same, each in its own precision."""

import io
import json

from rich.console import Console

from deepprism_jax.evaluation.report import Row, format_score, table, write_json
from deepprism_jax.metrics.state import Score

PSNR = Score(24.1042, 2.4961, 10_000, "images")
ROWS = [
    Row(
        "model",
        {"psnr": PSNR, "ssim": Score(0.85012, 0.053, 10_000, "images")},
        57847,
        192,
    ),
    Row("bicubic 4x", {"psnr": Score(21.14, None, 10_000, "images")}, 0, 192),
]


def test_table_has_a_row_a_method_and_a_dash_where_nothing_was_measured():
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(ROWS))
    lines = console.export_text().splitlines()
    model = next(line for line in lines if "model" in line)
    bicubic = next(line for line in lines if "bicubic" in line)
    for cell in ("24.10 ± 2.50", "0.850 ± 0.053", "57,847", "192"):
        assert cell in model
    assert "21.14" in bicubic
    assert "±" not in bicubic
    assert " - " in bicubic


def test_an_unknown_metric_gets_its_name_and_four_decimals():
    assert (
        format_score("kid", Score(0.01794, 0.0011, 100, "subsets")) == "0.0179 ± 0.0011"
    )


def test_json_holds_every_figure_in_full(tmp_path):
    path = tmp_path / "new" / "metrics.json"
    write_json(path, ROWS, {"step": 5, "split": "test"})
    report = json.loads(path.read_text())
    assert report["provenance"] == {"step": 5, "split": "test"}
    assert [method["method"] for method in report["methods"]] == ["model", "bicubic 4x"]
    assert report["methods"][0]["psnr"] == PSNR._asdict()
    assert report["methods"][0]["parameters"] == 57847
    assert report["methods"][1]["psnr"]["std"] is None
