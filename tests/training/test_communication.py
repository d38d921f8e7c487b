"""What devices send each other in a step, read from the compiled program."""

import jax
import pytest

from configs import CONFIGS
from deepprism_jax.analysis.plan_program import collectives
from deepprism_jax.analysis.plan_sweep import changed
from deepprism_jax.ops import bilinear
from deepprism_jax.training.autoencoder.trainer import AutoencoderTrainer
from deepprism_jax.training.sharding import make_mesh

SMALL = {"width": 8, "blocks": 0, "norm_groups": 4, "downsamples": 1}


def trainer(**model):
    config = CONFIGS["quickstart"].get_config()
    sizes = {"image_size": (8, 8)}
    return AutoencoderTrainer(
        changed(config, model=SMALL | model, data=sizes), make_mesh()
    )


@pytest.mark.parametrize(
    "method",
    [
        "banded",  # 9 C^2 numbers for each 27, were it reduced as it is computed
        *(
            pytest.param(method, marks=pytest.mark.slow)
            for method in ("reference", "shift_and_add", "shifted")
        ),
    ],
)
def test_gradients_are_reduced_as_parameters_however_they_are_computed(
    monkeypatch, method
):
    choose = bilinear._choose

    def forced(geometry, asked, *rest):
        assert asked == "auto"
        return choose(geometry, method, *rest)

    monkeypatch.setattr(bilinear, "_choose", forced)
    jax.clear_caches()  # the formulation is in no key of what was traced before
    try:
        deepprism = trainer(attention=False)
        program = deepprism.lower_step().compile().as_text()
    finally:
        jax.clear_caches()
    trained = jax.tree.leaves(deepprism.state_shapes.params)
    parameter_bytes = sum(x.size * x.dtype.itemsize for x in trained)
    (reduced,) = collectives(program or "")
    assert (reduced.kind, reduced.count) == ("all-reduce", 1)
    assert reduced.bytes == pytest.approx(parameter_bytes, rel=0.05)
