import json
import re

import pytest


@pytest.fixture
def traffic(benchmark_module):
    return benchmark_module("channel_traffic")


def test_a_halo_is_what_the_formula_says_and_a_dense_layer_gathers(traffic, tmp_path):
    path = tmp_path / "traffic.json"
    options = traffic.Options(
        subjects=("layer",), size=(4, 4), width=32, batch=2, json=str(path)
    )
    traffic.main(options)
    prism, dense = json.loads(path.read_text())["compiled_not_run"]
    sizes = {
        (found["kind"], c["kind"]): c["bytes"]
        for found in (prism, dense)
        for c in found["collectives"]
    }
    positions, itemsize = 2 * 4 * 4, 4
    assert prism["formula"] == 4 * positions * itemsize
    assert sizes["deepprism", "collective-permute"] == prism["formula"]
    # The gradients of 27 weights and one bias, which all devices share.
    assert sizes["deepprism", "all-reduce"] == 28 * 4
    assert dense["formula"] == 2 * positions * 32 * itemsize
    assert sizes["dense", "all-gather"] == positions * 32 * itemsize
    assert sizes["dense", "reduce-scatter"] * 4 == positions * 32 * itemsize


def test_what_cannot_be_cut_or_drawn_is_refused(traffic):
    refused = {
        "width=18 cannot be cut over 4 devices": traffic.Options(
            subjects=("layer",), width=18
        ),
        "--plot": traffic.Options(plot="traffic.png"),
        "unknown topology": traffic.Options(topology="v9:1"),
    }
    for words, options in refused.items():
        with pytest.raises(SystemExit, match=f"^error: .*{re.escape(words)}"):
            traffic.main(options)
