"""Metrics of distributions against torch-fidelity, with features in one piece or many.

In float64 its formulas and ours agree; what its command gives differs by the rounding
of its float32 means and kernels.
"""

import json
import re
from pathlib import Path

import generated_features
import numpy as np
import pytest

from deepprism_jax.metrics.feature_rows import FeatureRows
from deepprism_jax.metrics.fid import FID
from deepprism_jax.metrics.gaussian import Gaussian
from deepprism_jax.metrics.inception_score import InceptionScore
from deepprism_jax.metrics.kid import KID
from deepprism_jax.metrics.precision_recall import PrecisionRecall

GOLDEN = Path(__file__).parent / "golden" / "distributions.json"
FIGURES = json.loads(GOLDEN.read_text())


def parts(count):
    """Three parts of a set out of order, with masks and rows that do not count."""
    order = np.random.default_rng(0).permutation(count)
    for part in np.array_split(order, [1, count // 2]):
        mask = np.arange(len(part) + 3) >= 3
        yield np.concatenate([part[:1], part[:1], part[:1], part]), mask


def rows_of(features):
    rows = FeatureRows()
    for indices, mask in parts(len(features)):
        batch = features[indices]
        batch[~mask] = np.nan
        rows = rows.merge(FeatureRows.from_batch(batch, indices, mask))
    return rows


def gaussian_of(features):
    total = Gaussian.empty(features.shape[1])
    for indices, mask in parts(len(features)):
        total = total.merge(Gaussian.from_batch(features[indices], mask))
    return total


def score_of(logits):
    empty = total = InceptionScore.empty(len(logits))
    for indices, mask in parts(len(logits)):
        total = total.merge(empty.from_batch(logits[indices], indices, mask))
    return total


def figures(name):
    real, generated, logits = generated_features.case(name)
    rows = rows_of(real), rows_of(generated)
    subset = generated_features.CASES[name]["subset"]
    inception = score_of(logits).compute()
    kernel = KID(*rows, generated_features.SUBSETS, subset).compute()
    both = PrecisionRecall(*rows).compute()
    assert (inception.count, inception.over) == (10, "splits")
    assert (kernel.count, kernel.over) == (generated_features.SUBSETS, "subsets")
    assert inception.images == kernel.images == both.precision.count == len(generated)
    assert both.recall.count == len(real)
    return {
        "inception_score_mean": inception.value,
        "inception_score_std": inception.std,
        "frechet_inception_distance": FID(gaussian_of(real), gaussian_of(generated))
        .compute()
        .value,
        "kernel_inception_distance_mean": kernel.value,
        "kernel_inception_distance_std": kernel.std,
        "precision": both.precision.value,
        "recall": both.recall.value,
    }


@pytest.mark.parametrize("name", generated_features.CASES)
def test_equals_torch_fidelity(name):
    for metric, value in figures(name).items():
        expected = FIGURES[name]["float64"][metric]
        # Its precision and recall are means in float32.
        assert value == pytest.approx(expected, rel=1e-7), metric
        as_run = FIGURES[name]["float32"][metric]
        assert value == pytest.approx(as_run, rel=5e-6), metric


def test_the_example_of_the_documentation_runs(capsys):
    page = Path(__file__).parents[2] / "docs" / "metrics.md"
    (code,) = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
    exec(code, {})
    assert "over='subsets', images=400" in capsys.readouterr().out
