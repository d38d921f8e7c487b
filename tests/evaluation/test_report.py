"""The table, Markdown and the lines below say what was measured, each in its way."""

import io
import re

from rich.console import Console

from deepprism_jax.evaluation.legend import lines
from deepprism_jax.evaluation.report import (
    Row,
    format_score,
    markdown,
    table,
    text,
    write_report,
)
from deepprism_jax.evaluation.table4 import COLUMNS, PAPER, columns_of
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
FACTS = {
    "model": "AutoencoderKL",
    "step": 16_000,
    "source": "cifar10",
    "split": "test",
    "images": 10_000,
    "image_size": [32, 32],
    "deepprism_jax": "0.1",
    "networks": {
        "inception": {"name": "Inception-v3", "weights": "0123", "resize": "to 299"},
        "squeezenet1_1": {"name": "SqueezeNet 1.1", "weights": "4567"},
        "lpips_squeeze": {"name": "LPIPS v0.1", "weights": "89ab"},
    },
    "reference": "the training images",
    "kid_subset": 1_000,
    "skipped": ["LPIPS (vgg): no weights; python -m deepprism_jax.weights get vgg16"],
    "notes": ["PCA-192 was fitted on 50,000 images"],
}


def whole_row(method="model"):
    scores = {
        name: Score(0.5, 0.1, 100, "images")
        for name in reversed(COLUMNS)
        if name not in ("parameters", "code", "parameters_without_time", "ps")
    }
    return Row(method, scores, 1, 2)


def test_table_has_a_row_a_method_and_a_dash_where_nothing_was_measured():
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(ROWS))
    printed = console.export_text().splitlines()
    model = next(line for line in printed if "model" in line)
    bicubic = next(line for line in printed if "bicubic" in line)
    for figure in ("24.10 ± 2.50", "0.850 ± 0.053", "57,847", "192"):
        assert figure in model
    assert "21.14" in bicubic
    assert "±" not in bicubic
    assert " - " in bicubic


def test_headings_point_to_where_figures_are_better():
    printed = text(ROWS).replace("\N{NO-BREAK SPACE}", " ")
    assert "PSNR (dB) ↑" in printed
    assert "SSIM ↑" in printed
    assert "parameters ↓" in printed
    assert "FID ↓" in markdown([whole_row()]).replace("\N{NO-BREAK SPACE}", " ")


def test_columns_are_in_the_order_of_table_4_and_then_the_others():
    row = whole_row()
    row = Row("model", {**row.scores, "new": PSNR}, 1, 2)
    names = columns_of([row, PAPER[0]])
    table_4 = ["psnr", "is", "kid", "ps", "ssim", "parameters"]
    assert names[:6] == table_4
    assert names[6:9] == ["code", "fid", "lpips_squeeze"]
    assert names[-1] == "new"
    # What was measured never stands under the paper's own score.
    assert "ps" not in columns_of([row])


def test_efficientnet_is_named_and_its_figures_are_not_called_is_fid_or_kid():
    for name, column in COLUMNS.items():
        if "efficientnet" in name:
            assert column.heading.startswith("EfficientNet-Lite0 ")
            assert not re.search(r"\b(IS|FID|KID|Inception)", column.heading)


def test_no_figure_is_cut_on_a_narrow_console():
    rows = [whole_row("model"), whole_row("a method with quite a long name")]
    for width in (40, 80, 130, 800):
        printed = text(rows, width=width)
        assert max(map(len, printed.splitlines())) <= width
        figures = re.findall(r"0\.5\d* ± 0\.1\d*", printed)
        assert len(figures) == 2 * len(rows[0].scores)
        assert "…" not in printed
    assert text(rows, width=800).count("┏") == 1


def test_marked_figures_carry_an_asterisk_or_are_bold():
    marks = {(0, "psnr"), (1, "parameters")}
    printed = text(ROWS, marks=marks)
    assert re.findall(r"[^│]*\*", printed) == [" 24.10 ± 2.50 *", " " * 10 + "0 *"]
    assert re.findall(r"\*\*(.*?)\*\*", markdown(ROWS, (), marks)) == [
        "24.10 ± 2.50",
        "0",
    ]


def test_names_are_not_read_as_markup():
    row = Row("run [red] | `x` *", {"psnr": PSNR}, 1, 2)
    assert "run [red] | `x` *" in text([row])
    (line,) = markdown([row]).splitlines()[2:]
    assert line.startswith(r"| run [red] \| \`x\` \* | 24.10")


def test_markdown_is_a_table_with_a_list_below():
    made = markdown(ROWS, ["first", "second"])
    head, rest = made.split("\n\n")
    cells = [
        re.split(r" ?(?<!\\)\| ?", line)[1:-1] for line in head.strip().splitlines()
    ]
    assert {len(line) for line in cells} == {5}
    assert cells[0][0] == "method"
    assert set(cells[1]) == {"---", "---:"}
    assert cells[2] == ["model", "24.10 ± 2.50", "0.850 ± 0.053", "57,847", "192"]
    assert cells[3] == ["bicubic 4x", "21.14", "-", "0", "192"]
    assert rest == "* first\n* second\n"


def test_an_unknown_metric_gets_its_name_and_four_decimals():
    score = Score(0.01794, 0.0011, 100, "subsets")
    assert format_score("sharpness", score) == "0.0179 ± 0.0011"
    assert "sharpness" in text([Row("model", {"sharpness": score}, 1, 2)])


def test_lines_tell_samples_networks_what_is_left_out_and_notes():
    scores = {
        **ROWS[0].scores,
        "is": Score(6.0, 0.1, 10, "splits", 10_000),
        "kid": Score(0.01, 0.001, 100, "subsets", 10_000),
        "fid": Score(30.0, None, 10_000, "images"),
        "lpips_squeeze": Score(0.1, 0.05, 9_998, "images"),
    }
    assert lines([Row("model", scores, 1, 2)], FACTS) == [
        "10,000 images of 32x32, cifar10 split 'test'; AutoencoderKL, checkpoint "
        "16,000; deepprism_jax 0.1",
        "PSNR (dB), SSIM: mean ± std over 10,000 images",
        "IS: mean ± std over 10 splits of 10,000 images in all",
        "KID: mean ± std over 100 subsets of 10,000 images in all",
        "FID: over 10,000 images",
        "LPIPS (squeeze): mean ± std over 9,998 images",
        "IS, KID, FID: by Inception-v3, weights 0123, resize: to 299",
        "LPIPS (squeeze): by SqueezeNet 1.1, weights 4567; LPIPS v0.1, weights 89ab",
        "KID, FID: compared with the training images",
        "KID: every subset has 1,000 images",
        "left out: LPIPS (vgg): no weights; python -m deepprism_jax.weights get vgg16",
        "PCA-192 was fitted on 50,000 images",
    ]


def test_lines_name_the_methods_whose_samples_differ():
    few = Row("PCA", {"psnr": PSNR._replace(count=9_998)}, 1, 2)
    facts = {"reference": "the training images", "kid_subset": 1_000}  # no such metric
    assert lines([ROWS[0], few], facts) == [
        "PSNR (dB) of model, SSIM: mean ± std over 10,000 images",
        "PSNR (dB) of PCA: mean ± std over 9,998 images",
    ]


def test_the_papers_rows_stand_as_printed():
    printed = markdown(PAPER)
    dense, prism = printed.splitlines()[2:]
    for figure in ("18.8 ± 2.4", "5.99 ± 0.12", "2.07 ± 0.49", "0.609 ± 0.106"):
        assert f"| {figure} |" in dense
    for figure in ("24.1 ± 2.5", "0.0179 ± 0.0011", "0.850 ± 0.053", "57.8K"):
        assert f"| {figure} |" in prism
    assert lines(PAPER, {}) == []  # over what its ± are taken is not known


def test_all_formats_are_written(tmp_path):
    names = write_report(tmp_path / "new", ROWS, FACTS)
    assert sorted(names) == sorted(file.name for file in (tmp_path / "new").iterdir())
    below = (tmp_path / "new" / "metrics.md").read_text(encoding="utf-8")
    assert below == markdown(ROWS, lines(ROWS, FACTS))
