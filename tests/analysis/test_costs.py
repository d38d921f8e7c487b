import io

import pytest
from flax import nnx
from rich.console import Console

from deepprism_jax.analysis import cost_table, layer_costs
from deepprism_jax.layers import Attention, GroupNorm, conv_factory, make_conv
from deepprism_jax.models import AutoencoderKL
from deepprism_jax.models.discriminator import PatchDiscriminator


def abstract(make):
    return nnx.eval_shape(lambda: make(nnx.Rngs(0)))


@pytest.mark.parametrize(
    ("kind", "options", "parts"),
    [
        # 2 operations a weight and output number; 6 x 4 positions of 32 channels
        ("dense", {}, [("dense 3x3", 9 * 32)]),
        ("group", {"groups": 8}, [("dense 3x3", 9 * 4)]),
        ("deepprism", {}, [("prism 3x3x3", 27)]),
        ("deepprism", {"fields": 4}, [("prism 3x3x3", 27 * 4)]),
        ("channel", {}, [("prism 1x1x3", 3)]),
        ("prism_separable", {}, [("prism 3x3x1", 9), ("prism 1x1x3", 3)]),
        ("depthwise_separable", {}, [("dense 3x3", 9), ("dense 1x1", 32)]),
    ],
)
def test_operations_of_a_convolution(kind, options, parts):
    conv = abstract(lambda rngs: make_conv(kind, 32, 32, rngs=rngs, **options))
    costs = layer_costs(conv, (1, 6, 4, 32))
    assert [(cost.kind, cost.operations) for cost in costs] == [
        (name, 2 * weights * 6 * 4 * 32) for name, weights in parts
    ]
    for cost in costs:
        assert cost.bytes == 4 * (2 * 6 * 4 * 32 + cost.parameters)


def test_norm_and_attention():
    norm = abstract(lambda rngs: GroupNorm(8, 4, rngs=rngs))
    (cost,) = layer_costs(norm, (2, 3, 5, 8))
    assert cost[1:] == ("norm", (2, 3, 5, 8), 16, 8 * 240, 4 * (2 * 240 + 16))
    attention = abstract(
        lambda rngs: Attention(8, heads=2, conv=conv_factory("dense"), rngs=rngs)
    )
    *_, product, output = layer_costs(attention, (3, 2, 5, 8))
    # q k^T and the average of v: 10 x 10 positions, 8 channels over the heads
    assert product.operations == 2 * (2 * 3 * 10 * 10 * 8)
    assert output.name == "output"


@pytest.mark.parametrize("conv", ["dense", "deepprism", "low_rank"])
def test_all_parameters_are_in_the_layers(conv):
    model = abstract(lambda rngs: AutoencoderKL(width=64, conv=conv, rngs=rngs))
    costs = layer_costs(model, (1, 32, 16, 3), method="reconstruct")
    sizes = {"dense": 1_598_463, "deepprism": 15_415}
    total = sum(cost.parameters for cost in costs)
    assert total == sizes.get(conv, total)
    assert costs[0].name == "encoder.conv_in"
    assert costs[-1].output == (1, 32, 16, 3)
    assert len({cost.name for cost in costs if cost.name}) == len(
        [cost for cost in costs if cost.name]
    )


def test_a_network_that_is_called_plainly():
    critic = abstract(lambda rngs: PatchDiscriminator(width=8, layers=2, rngs=rngs))
    assert sum(cost.parameters for cost in layer_costs(critic, (1, 32, 32, 3))) == 6_537


def test_the_table_has_a_line_a_layer_and_a_sum():
    conv = abstract(lambda rngs: make_conv("prism_separable", 32, 32, rngs=rngs))
    console = Console(width=120, file=io.StringIO())
    console.print(cost_table("costs", layer_costs(conv, (1, 6, 4, 32))))
    text = console.file.getvalue()
    assert "space" in text
    assert "75.0%" in text
    assert "18.4k" in text  # 2 * 12 * 768 operations
