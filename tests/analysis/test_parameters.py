import io

import numpy as np
import pytest
from flax import nnx
from rich.console import Console

from deepprism_jax.analysis import count_layers, parameter_count, parameter_table
from deepprism_jax.layers.functional import Functional
from deepprism_jax.models import AutoencoderKL, AutoencoderVQ
from deepprism_jax.models.discriminator import PatchDiscriminator


def shapes_of(make):
    return Functional(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))).shapes


@pytest.fixture(scope="module")
def networks():
    return {
        "discriminator": shapes_of(
            lambda rngs: PatchDiscriminator(width=8, layers=2, rngs=rngs)
        ),
        "autoencoder": shapes_of(lambda rngs: AutoencoderKL(width=256, rngs=rngs)),
        "perceptual": {"layer_weights": np.zeros(7)},
    }


COUNTS = [
    ("encoder", "convolution 3x3", 2, (27 + 1) * 256 + (9 * 256 + 1) * 6),
    ("encoder", "normalisation", 18, 18 * 512),
    # 8 Res of two and 2 Down
    ("encoder", "channel convolution 3x3x3", 18, 18 * 28),
    ("encoder", "convolution 1x1", 1, 6 * 6 + 6),
    ("encoder", "channel convolution 1x1x3", 4, 4 * 4),
    ("decoder", "convolution 3x3", 2, (27 + 1) * 256 + (9 * 256 + 1) * 3),
    ("decoder", "normalisation", 24, 24 * 512),
    # 11 Res of two and 2 Up
    ("decoder", "channel convolution 3x3x3", 24, 24 * 28),
    ("decoder", "channel convolution 1x1x3", 4, 4 * 4),
    ("decoder", "convolution 1x1", 1, 3 * 3 + 3),
    (
        *("discriminator", "convolution 3x3", 3),
        9 * 8 * 16 + 9 * 16 * 32 + (9 * 32 + 1),
    ),
    ("discriminator", "convolution 4x4", 1, 16 * 3 * 8 + 8),
    ("discriminator", "normalisation", 2, 2 * 16 + 2 * 32),
    ("perceptual", "layer weights w_l", 1, 7),
]


def test_counts_are_those_of_the_structure(networks):
    counts = count_layers(networks)
    assert sorted(counts, key=lambda count: count[:2]) == sorted(COUNTS)
    assert [count.network for count in counts] == [count[0] for count in COUNTS]
    total = sum(count.parameters for count in counts)
    assert total == sum(map(parameter_count, networks.values())) == 57_847 + 6_537 + 7


def test_codebook_is_told_from_the_record_of_its_use():
    shapes = shapes_of(
        lambda rngs: AutoencoderVQ(width=32, codebook_size=10, rngs=rngs)
    )
    codebook = [
        count[1:]
        for count in count_layers({"autoencoder": shapes})
        if count.network == "codebook"
    ]
    assert codebook == [("codes", 1, 30), ("usage of the codes, not trained", 1, 10)]


@pytest.mark.parametrize(
    ("conv", "kinds"),
    [
        ("dense", {"convolution 3x3", "convolution 1x1"}),
        ("depthwise_separable", {"convolution 3x3", "convolution 1x1"}),
        ("prism_separable", {"channel convolution 3x3x1", "channel convolution 1x1x3"}),
    ],
)
def test_kinds_of_hidden_convolutions(conv, kinds):
    shapes = shapes_of(lambda rngs: AutoencoderKL(width=32, conv=conv, rngs=rngs))
    body = {name: leaf for name, leaf in shapes.items() if ".body." in name}
    found = {count.kind for count in count_layers({"autoencoder": body})}
    assert found == kinds | {"normalisation"}


def test_table_has_a_sum_for_every_network(networks):
    console = Console(width=120, file=io.StringIO())
    console.print(parameter_table(networks))
    lines = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in console.file.getvalue().splitlines()
    ]
    assert ["encoder", "all", "43", "30,776"] in lines
    assert ["decoder", "all", "55", "27,071"] in lines
    assert ["discriminator", "all", "6", "6,537"] in lines
    assert ["all", "", "105", "64,391"] in lines
