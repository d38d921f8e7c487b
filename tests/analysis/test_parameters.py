import io

import numpy as np
import pytest
from flax import nnx
from rich.console import Console

from deepprism_jax.analysis import count_by_layer, parameter_count, parameter_table
from deepprism_jax.analysis.parameters import layer_of
from deepprism_jax.layers.functional import Functional
from deepprism_jax.models import AutoencoderKL, AutoencoderVQ
from deepprism_jax.models.discriminator import PatchDiscriminator


def shapes_of(make):
    return Functional(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))).shapes


@pytest.fixture(scope="module")
def networks():
    return {
        "autoencoder": shapes_of(lambda rngs: AutoencoderKL(width=256, rngs=rngs)),
        "discriminator": shapes_of(
            lambda rngs: PatchDiscriminator(width=8, layers=2, rngs=rngs)
        ),
        "perceptual": {"layer_weights": np.zeros(7)},
    }


def test_counts_are_those_of_the_structure(networks):
    counts = count_by_layer(networks)
    assert counts["encoder"] == {
        "hidden convolutions": 18 * 28,  # 8 Res of two, 2 Down
        "attention": 4 * 4,
        "normalisation": 18 * 512,
        "input and output": (27 + 1) * 256 + (9 * 256 + 1) * 6,
        "latent": 6 * 6 + 6,
    }
    assert counts["decoder"] == {
        "hidden convolutions": 24 * 28,  # 11 Res of two, 2 Up
        "attention": 4 * 4,
        "normalisation": 24 * 512,
        "input and output": (27 + 1) * 256 + (9 * 256 + 1) * 3,
        "latent": 3 * 3 + 3,
    }
    assert counts["discriminator"] == {
        "hidden convolutions": 9 * 8 * 16 + 9 * 16 * 32,
        "normalisation": 2 * 16 + 2 * 32,
        "input and output": 16 * 3 * 8 + 8 + 9 * 32 + 1,
    }
    assert counts["perceptual"] == {"perceptual weights": 7}
    total = sum(sum(layers.values()) for layers in counts.values())
    assert total == sum(map(parameter_count, networks.values()))


def test_codebook_is_told_from_the_record_of_its_use():
    shapes = shapes_of(
        lambda rngs: AutoencoderVQ(width=32, codebook_size=10, rngs=rngs)
    )
    assert count_by_layer({"autoencoder": shapes})["codebook"] == {
        "codebook": 30,
        "codebook usage (not trained)": 10,
    }


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("encoder.body.0.conv1.kernel", "hidden convolutions"),
        ("encoder.body.0.conv2.depthwise.kernel", "hidden convolutions"),
        ("encoder.body.2.conv.bias", "hidden convolutions"),
        ("decoder.body.1.attention.query.reduce.kernel", "attention"),
        ("decoder.body.1.norm.scale", "normalisation"),
        ("decoder.norm_out.bias", "normalisation"),
        ("hidden.0.norm.bias", "normalisation"),
        ("conv_in.kernel", "input and output"),
        ("post_quant_conv.bias", "latent"),
    ],
)
def test_layer_of_a_name(name, layer):
    assert layer_of(name) == layer


def test_table_sums_rows_and_columns(networks):
    console = Console(width=120, file=io.StringIO())
    console.print(parameter_table(networks))
    lines = [
        [cell.strip() for cell in line.replace("┃", "│").strip("│").split("│")]
        for line in console.file.getvalue().splitlines()
    ]
    rows = {cells[0]: cells[1:] for cells in lines if cells}
    assert rows["parameters"] == [
        *("encoder", "decoder", "discriminator", "perceptual", "total")
    ]
    assert rows["attention"] == ["16", "16", "-", "-", "32"]
    assert rows["total"] == ["30,776", "27,071", "6,537", "7", "64,391"]
    assert "codebook" not in rows
