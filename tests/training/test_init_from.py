"""A run begins with the weights of another model, or is refused before any work."""

import jax
import numpy as np
import pytest
from entry_points import load_main
from flax import nnx

from configs import CONFIGS
from deepprism_jax.models import AutoencoderKL, AutoencoderVQ
from deepprism_jax.training.cli import parse
from deepprism_jax.training.init_from import starting_values
from deepprism_jax.training.preflight import PreflightError
from deepprism_jax.training.state import TrainState, beginning_with


def test_values_given_are_where_training_begins():
    drawn = {"a": np.zeros((2, 3)), "codes": np.zeros(4)}
    given = {"a": np.arange(3.0), "codes": np.ones(4)}
    state = TrainState(
        step=jax.numpy.zeros((), int),
        params={"net": {"a": drawn["a"]}, "other": {"b": np.full(2, 7.0)}},
        ema={"a": drawn["a"]},
        extra={"buffers": {"codes": drawn["codes"]}, "lecam": {}},
        opt_state={},
        key=np.zeros(2),
    )
    begun = beginning_with(state, "net", given)
    rows = np.tile(given["a"], (2, 1))  # two models, of two images
    np.testing.assert_array_equal(begun.params["net"]["a"], rows)
    np.testing.assert_array_equal(begun.ema["a"], rows)
    np.testing.assert_array_equal(begun.extra["buffers"]["codes"], given["codes"])
    np.testing.assert_array_equal(begun.params["other"]["b"], np.full(2, 7.0))
    off = beginning_with(state._replace(ema={}), "net", given)
    assert off.ema == {}


def test_the_option_has_a_short_name():
    run = parse(["quickstart", "--init-from", "cifar10-deepprism"], CONFIGS)
    assert run.config.train.init_from == "cifar10-deepprism"


@pytest.mark.slow
def test_a_run_begins_where_a_model_of_the_package_is(tmp_path, capsys):
    main = load_main("train")
    asked = f"""quickstart --workdir {tmp_path / "run"} --init-from cifar10-deepprism
        --model.width 128 --model.norm-groups 32 --model.fields 2 --model.blocks 2
        --optimizer.learning-rate 1e-9 --optimizer.warmup-steps 0
        --train.steps 1 --train.batch-size 8 --train.eval-images 8"""
    assert main(asked.split()) == 0
    assert "begins with the weights of cifar10-deepprism" in capsys.readouterr().out
    lines = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert float(lines.split('"eval/psnr": ')[1].split(",")[0]) > 22


def test_what_cannot_begin_so_is_refused():
    options = {"width": 128, "fields": 4, "norm_groups": 32}
    wanted = nnx.eval_shape(lambda: AutoencoderKL(**options, rngs=nnx.Rngs(0)))
    with pytest.raises(PreflightError, match="--init-from cifar10-deepprism: fields=4"):
        starting_values(wanted, "cifar10-deepprism", 0)
    with pytest.raises(PreflightError, match="no model 'nobody' in the package"):
        starting_values(wanted, "nobody", 0)
    vq = nnx.eval_shape(lambda: AutoencoderVQ(**options, rngs=nnx.Rngs(0)))
    with pytest.raises(PreflightError, match="holds AutoencoderKL, and this run"):
        starting_values(vq, "cifar10-deepprism", 0)
