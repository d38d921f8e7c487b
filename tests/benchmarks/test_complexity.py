import json

import jax.numpy as jnp
import numpy as np
import pytest

SIZES = {"B": 2, "C": 8, "side": 3, "G": 2, "P": 2}


def test_the_smallest_run_prints_and_writes(benchmark_module, tmp_path, capsys):
    complexity = benchmark_module("complexity")
    path = tmp_path / "figures.json"
    complexity.main(
        complexity.Options(
            operators=("Conv", "Prism"),
            variables=("C",),
            rows=("parameters", "training"),
            points=2,
            shrink=16,
            seconds=0.0,
            bursts=1,
            json=str(path),
        )
    )
    printed = capsys.readouterr().out
    assert "training time over channels: DeepPrism" in printed
    written = json.loads(path.read_text())
    assert written["machine"]["cores"] >= 1
    cells = {(one["operator"], one["row"]): one for one in written["cells"]}
    assert len(cells) == 4
    conv = cells["Conv", "parameters"]
    assert conv["sizes"] == [4, 8]
    assert conv["values"] == [9 * 16 + 4, 9 * 64 + 8]
    assert cells["Prism", "parameters"]["slope"] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    "name",
    [
        "Conv",
        "Group",
        "Prism",
        "Attention",
        "FlashAttn",
        "MultiHeadAttn",
        "SparseAttn",
        "PrismAttn",
    ],
)
def test_the_count_of_parameters_is_exact(benchmark_module, name):
    formulas = benchmark_module("formulas")
    entry = benchmark_module("table2").TABLE2[name].entries["parameters"]
    subject = benchmark_module("table2_subjects").Subject(name, SIZES)
    counted = formulas.evaluate(formulas.parse(entry.counted), subject.sizes)
    assert subject.parameters == counted


@pytest.mark.slow
def test_whole_and_chunked_attention_are_the_layer(benchmark_module):
    subjects = benchmark_module("table2_subjects")
    sizes = {**SIZES, "side": 10, "P": 1}
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 10, 10, 8)), jnp.float32)
    layer = subjects.make("Attention", sizes)
    expected = layer(x)
    for name in ("Attention", "FlashAttn", "MultiHeadAttn"):
        np.testing.assert_allclose(subjects.APPLY[name](layer, x), expected, atol=1e-5)


def test_the_scores_are_held_whole_or_in_strips(benchmark_module):
    subjects = benchmark_module("table2_subjects")
    sizes = {**SIZES, "B": 1, "side": 40, "P": 1}
    scores = 4 * 1600**2
    whole, chunked = (
        subjects.Subject(name, sizes).space for name in ("Attention", "FlashAttn")
    )
    assert chunked < scores < whole


def test_a_wrong_print_is_told_from_a_wrong_count(benchmark_module):
    complexity = benchmark_module("complexity")

    def remark(measured, paper, counted):
        found = complexity.Found(
            "Conv", "space", "C", [1, 2], [1.0, 2.0], measured, 1.0, paper, counted, ""
        )
        return found.remark(0.25)

    assert remark(1.0, 1.2, 0.0) == ""
    assert remark(1.0, 0.5, 1.1) == "print off, count holds"
    assert remark(1.0, 0.5, 2.0) == "print off, count off"
