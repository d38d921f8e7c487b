import re

import pytest

from deepprism_jax.analysis import __main__ as program
from deepprism_jax.analysis.table3 import PRINTED, autoencoder_parameters

EXACT = {
    128: (6_358_975, 29_559),
    256: (25_366_335, 57_847),
    512: (101_326_399, 114_423),
    1024: (405_027_903, 227_575),
}


@pytest.mark.parametrize("width", EXACT)
def test_counts_are_exact_and_the_printed_ones_to_their_last_digit(width):
    counts = (
        autoencoder_parameters(width, "dense"),
        autoencoder_parameters(width, "deepprism"),
    )
    assert counts == EXACT[width]
    for count, printed in zip(counts, PRINTED[width], strict=False):
        # Three digits are printed, some cut and some rounded.
        last_digit = 10.0 ** (len(f"{printed:.0f}") - 3)
        assert abs(count - printed) < last_digit
        assert abs(count / printed - 1) < 0.004


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["analysis", *arguments])
    program.main()
    return [
        re.findall(r"[\w.,]+", line) for line in capsys.readouterr().out.splitlines()
    ]


def test_program_prints_exact_beside_printed(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    rows = run(monkeypatch, capsys, "table3")
    for row in (
        ["128", "6,358,975", "6.36M", "29,559", "29.5K", "215.1", "216"],
        ["256", "25,366,335", "25.3M", "57,847", "57.8K", "438.5", "438"],
        ["512", "101,326,399", "101M", "114,423", "114K", "885.5", "886"],
        ["1024", "405,027,903", "405M", "227,575", "227K", "1779.8", "1784"],
    ):
        assert row in rows


def test_program_counts_any_autoencoder(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    rows = run(monkeypatch, capsys, "parameters", "--width", "64", "--fields", "2")
    hidden = ["channel", "convolution", "3x3x3"]
    assert ["encoder", *hidden, "18", f"{18 * (27 * 4 + 2):,}"] in rows
    assert ["decoder", *hidden, "24", f"{24 * (27 * 4 + 2):,}"] in rows


def test_program_refuses_in_one_line(monkeypatch, capsys):
    with pytest.raises(SystemExit, match=r"^norm groups=32 must divide C=100; .*$"):
        run(monkeypatch, capsys, "parameters", "--width", "100")
