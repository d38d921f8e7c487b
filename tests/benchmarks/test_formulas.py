import math

import pytest


@pytest.fixture
def formulas(benchmark_module):
    return benchmark_module("formulas")


def test_a_formula_is_read_as_its_monomials(formulas):
    formula = formulas.parse("2 B C N^3/2 + C^2 G^-1 + 7")
    sizes = {"B": 3, "C": 5, "N": 4, "G": 10}
    assert formulas.evaluate(formula, sizes) == 2 * 3 * 5 * 8 + 25 / 10 + 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 + C C", "C occurs twice in 'C C'"),
        ("C^x", "Invalid literal for Fraction"),
        ("2,5 C", "could not convert string to float"),
    ],
)
def test_what_is_no_formula_is_refused(formulas, text, message):
    with pytest.raises(ValueError, match=message):
        formulas.parse(text)


@pytest.mark.parametrize(
    ("text", "variable", "exponent"),
    [
        ("C N^2 + C^2 N", "C", 2),
        ("C N^2 + C^2 N", "N", 2),
        ("C N^3/2 + C^2 N", "N", 1.5),
        ("C^2 G^-1", "G", -1),
        ("C N^2 P^-1 + C^2 N", "P", 0),
        ("28", "C", 0),
    ],
)
def test_the_leading_exponent(formulas, text, variable, exponent):
    assert formulas.leading_exponent(formulas.parse(text), variable) == exponent


def test_a_power_has_its_exponent_as_slope(formulas):
    x = [1, 2, 5, 30]
    assert formulas.slope(x, [7 * one**-1.5 for one in x]) == pytest.approx(-1.5)


def test_the_slope_of_a_sum_between_two_sizes(formulas):
    formula = formulas.parse("C N^2 + C^2 N")
    sizes = [{"C": c, "N": 100} for c in (50, 200)]
    # (200 10^4 + 4 10^4 10^2) / (50 10^4 + 2500 10^2) = 8 over a ratio of 4
    expected = math.log(8) / math.log(4)
    assert formulas.predicted_slope(formula, "C", sizes) == pytest.approx(expected)


def test_the_slope_of_a_sum_nears_its_leading_exponent(formulas):
    formula = formulas.parse("C N^2 + C^2 N")
    sizes = [{"C": c, "N": 1} for c in (1e5, 1e6, 1e7)]
    assert formulas.predicted_slope(formula, "C", sizes) == pytest.approx(2, abs=1e-4)
