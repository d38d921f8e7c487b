"""Formulas that are sums of monomials, and their slopes on logarithmic axes.

A formula is written as `2 B C N^2 + C^2 N G^-1`: factors apart by spaces, exponents
whole or fractions such as `N^3/2`, a constant as a number.
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np


class Monomial(NamedTuple):
    """A constant times powers of variables."""

    constant: float
    exponents: dict[str, Fraction]


Formula = tuple[Monomial, ...]
Sizes = Mapping[str, float]


def parse(text: str) -> Formula:
    """Read a formula.

    Raises:
        ValueError: it is not written as this module says.
    """
    return tuple(_monomial(part) for part in text.split("+"))


def _monomial(text: str) -> Monomial:
    constant, exponents = 1.0, {}
    for factor in text.split():
        name, _, exponent = factor.partition("^")
        if not name.isidentifier():
            constant *= float(factor)
        elif name in exponents:
            raise ValueError(f"{name} occurs twice in {text.strip()!r}")
        else:
            exponents[name] = Fraction(exponent or 1)
    return Monomial(constant, exponents)


def evaluate(formula: Formula, sizes: Sizes) -> float:
    """The value where every variable has its size."""
    return sum(
        constant * math.prod(sizes[name] ** power for name, power in exponents.items())
        for constant, exponents in formula
    )


def leading_exponent(formula: Formula, variable: str) -> Fraction:
    """The exponent that is left where the variable is large and the others are not."""
    return max(one.exponents.get(variable, Fraction(0)) for one in formula)


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of the line of least squares through log y against log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def predicted_slope(formula: Formula, variable: str, sizes: Sequence[Sizes]) -> float:
    """The slope that the formula's own values at these sizes have."""
    values = [evaluate(formula, one) for one in sizes]
    return slope([one[variable] for one in sizes], values)
