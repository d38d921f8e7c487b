import dataclasses
import math
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from deepprism_jax.training.autoencoder.checks import check, check_files
from deepprism_jax.training.autoencoder.networks import make_perceptual
from deepprism_jax.training.config import Config
from deepprism_jax.training.preflight import (
    PreflightError,
    as_steps,
    divisors,
    refusing,
)
from deepprism_jax.weights.registry import REGISTRY


def changed(**overrides):
    """Config with dotted names overridden, dots written as double underscores."""
    config = Config()
    for name, value in overrides.items():
        group, field = name.split("__")
        part = dataclasses.replace(getattr(config, group), **{field: value})
        config = dataclasses.replace(config, **{group: part})
    return config


def problems(devices=1, processes=1, **overrides):
    try:
        check(changed(**overrides), devices=devices, processes=processes)
        check_files(changed(**overrides))
    except PreflightError as error:
        for problem in error.problems:
            assert "\n" not in problem
        return list(error.problems)
    return []


def test_the_default_config_passes():
    assert problems() == []


@pytest.mark.parametrize(
    ("overrides", "pattern"),
    [
        ({"model__width": 100}, r"norm_groups=32 .*width=100; .*\[1, 2, 4, 5, 10"),
        ({"model__heads": 3}, r"heads=3 must divide model.width=256"),
        ({"model__width": 0}, r"model.width=0 must be a number from 1"),
        ({"model__downsamples": -1}, r"model.downsamples=-1"),
        (
            {"data__image_size": (30, 32)},
            r"\(30, 32\).*factor 4 .*nearest is \(32, 32\)",
        ),
        ({"data__image_size": (0, 32)}, r"\(0, 32\).*nearest is \(4, 32\)"),
        (
            {"train__batch_size": 62, "train__accumulation": 4},
            r"62 .* 4; choose 60 or 64",
        ),
        (
            {"train__batch_size": 2, "train__accumulation": 4},
            r"batch_size=2 .*choose 4$",
        ),
        ({"train__batch_size": 0}, r"train.batch_size=0 must"),
        ({"train__accumulation": 0}, r"train.accumulation=0 must"),
        ({"train__steps": 0}, r"train.steps=0 must"),
        ({"train__keep": 0}, r"train.keep=0 must"),
        ({"train__log_every": 0}, r"train.log_every=0 must"),
        ({"train__save_every": -1}, r"train.save_every=-1 must"),
        ({"train__ema_decay": 1.0}, r"train.ema_decay=1.0 must lie in \[0, 1\)"),
        ({"loss__kl_weight": -1e-6}, r"loss.kl_weight=-1e-06 must"),
        ({"loss__kl_weight": math.nan}, r"loss.kl_weight=nan must"),
        ({"loss__kl_weight": math.inf}, r"loss.kl_weight=inf must"),
        ({"loss__ssim_weight": -1.0}, r"loss.ssim_weight=-1.0 must"),
        (
            {"loss__ssim_weight": 1.0, "data__image_size": (16, 8)},
            r"ssim_weight=1.0 .*image_size=\(16, 8\) has none: set --loss",
        ),
        ({"loss__perceptual_weight": 1.0}, r"weights get squeezenet1_1, .*or set"),
        (
            {
                "loss__perceptual_weight": 1.0,
                "loss__perceptual_weights": "/no/such.npz",
            },
            r"loss.perceptual_weights='/no/such.npz' is not a file",
        ),
        ({"loss__r1_weight": 1.0}, r"r1_weight=1.0 regularises a discriminator"),
        ({"loss__lecam_weight": 1.0}, r"lecam_weight=1.0 regularises a discriminator"),
        ({"optimizer__learning_rate": 0.0}, r"learning_rate=0.0 must be a number"),
        ({"optimizer__discriminator_ratio": -1.0}, r"discriminator_ratio=-1.0 must"),
        ({"optimizer__discriminator_ratio": math.nan}, r"discriminator_ratio=nan must"),
        ({"discriminator__rank": 0}, r"discriminator.rank=0 must be a number from 1"),
        ({"optimizer__b2": 1.0}, r"optimizer.b2=1.0 must lie in"),
        (
            {"optimizer__weight_decay": 0.1},
            r"weight_decay=0.1 .*name=adam: choose adamw",
        ),
        ({"optimizer__warmup_steps": 10_000}, r"warmup_steps=10000 must be below"),
        ({"train__profile_steps": (20, 10)}, r"profile_steps=20 10 must be a first"),
        ({"train__profile_steps": (0, 10)}, r"profile_steps=0 10 .*, from 1 to"),
        ({"train__profile_steps": (9, 10_001)}, r"9 10001 .* 1 to train.steps=10000;"),
    ],
)
def test_each_mistake_is_one_problem_with_value_and_remedy(overrides, pattern):
    (problem,) = problems(**overrides)
    assert re.search(pattern, problem), problem


@pytest.fixture
def brought(tmp_path, monkeypatch):
    """Make a file of the weights' store, all ones."""
    monkeypatch.setenv("DEEPPRISM_WEIGHTS", str(tmp_path))

    def bring(name):
        shapes = REGISTRY[name].shapes()
        tensors = {n: np.ones(shape, np.float32) for n, shape in shapes.items()}
        save_file(tensors, tmp_path / f"{name}.safetensors")

    return bring


def test_perceptual_weights_are_those_that_were_brought(brought):
    overrides = {"loss__perceptual_weight": 1.0}
    assert "get squeezenet1_1" in problems(**overrides)[0]
    with pytest.raises(FileNotFoundError, match="get squeezenet1_1"):
        make_perceptual(changed(**overrides))
    brought("squeezenet1_1")
    assert problems(**overrides) == []
    assert make_perceptual(changed(**overrides)).learnable
    (problem,) = problems(**overrides, loss__perceptual_net="alex")
    assert "get alexnet" in problem


def test_lpips_heads_are_those_that_were_brought_if_asked_for(brought):
    overrides = {"loss__perceptual_weight": 1.0, "loss__perceptual_heads": "lpips"}
    brought("squeezenet1_1")
    (problem,) = problems(**overrides)
    assert "loss.perceptual_heads=lpips are not on this machine" in problem
    assert "get lpips_squeeze" in problem
    brought("lpips_squeeze")
    assert problems(**overrides) == []
    assert not make_perceptual(changed(**overrides)).learnable
    # They change what is learned, so that they are never taken unasked.
    assert make_perceptual(changed(loss__perceptual_weight=1.0)).learnable


@pytest.mark.parametrize(
    ("start", "warmup", "pattern"),
    [
        (0.5, 0.05, None),
        (5000.0, 5000.0, None),
        (0.0, 0.0, None),
        (10_000.0, 0.05, r"adversarial_start=10000.0 \(step 10000\) is never reached"),
        (0.0, 0.05, r"warmup=0.05 \(500 steps\) does not fit before .*\(step 0\)"),
        (100.0, 200.0, r"at most 100 steps"),
    ],
)
def test_adversarial_schedule_must_fit_the_run(start, warmup, pattern):
    found = problems(
        loss__adversarial_weight=0.5,
        loss__adversarial_start=start,
        loss__discriminator_warmup=warmup,
    )
    if pattern is None:
        assert found == []
    else:
        assert re.search(pattern, found[0])


def test_all_problems_are_told_at_once():
    found = problems(model__width=33, train__steps=0, loss__r1_weight=1.0)
    assert len(found) == 3


@pytest.mark.parametrize(
    ("devices", "batch_size", "accumulation", "fits"),
    [(8, 64, 1, True), (8, 64, 8, True), (8, 64, 16, False), (3, 64, 1, False)],
)
def test_batch_is_spread_over_devices_and_accumulation(
    devices, batch_size, accumulation, fits
):
    found = problems(
        devices, train__batch_size=batch_size, train__accumulation=accumulation
    )
    assert (found == []) == fits
    if not fits:
        assert f"{devices} devices x train.accumulation={accumulation}" in found[0]


def test_fractions_are_of_the_run():
    assert as_steps(0.5, 1000) == 500
    assert as_steps(0.0, 1000) == 0
    assert as_steps(1.0, 1000) == 1
    assert as_steps(250.0, 1000) == 250


def test_divisors():
    assert divisors(12) == [1, 2, 3, 4, 6, 12]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("first\nsecond"), "first"),
        (FileNotFoundError("no file"), "no file"),
        (OSError(), "OSError"),
    ],
)
def test_what_the_library_refuses_is_a_refusal(error, line):
    with pytest.raises(PreflightError) as caught, refusing():
        raise error
    assert caught.value.problems == (line,)


def test_a_mistake_in_the_program_is_not_a_refusal():
    with pytest.raises(KeyError), refusing():
        raise KeyError("a")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"mesh__fsdp": 3}, "mesh.fsdp=3 x mesh.channel=1 = 3 must divide .* 8"),
        (
            {"mesh__data": 4},
            "mesh.data=4 x .* number of devices, 8; set --mesh.data 8",
        ),
        (
            {"train__batch_size": 6, "mesh__channel": 2},
            r"by 4 parts \(mesh.data x mesh.fsdp\) x train.accumulation=1 = 4; choose 4"
            " or 8",
        ),
        (
            {"mesh__channel": 8, "model__width": 36, "model__norm_groups": 4},
            "model.width=36 must be a multiple of mesh.channel=8, 8; the nearest is 32",
        ),
        (
            {"mesh__channel": 8, "model__norm_groups": 32, "model__fields": 8},
            "model.norm_groups=32 must be a multiple of model.fields=8 x "
            "mesh.channel=8, 64; the nearest is 64",
        ),
        (
            {"mesh__channel": 2, "model__conv": "low_rank"},
            "mesh.channel=2 cannot cut model.conv=low_rank; choose one of deepprism",
        ),
        (
            {"mesh__channel": 2, "model__multipliers": (1, 1, 2)},
            "mesh.channel=2 cannot cut model.conv=deepprism where widths differ by",
        ),
        (
            {"mesh__channel": 8, "data__image_size": (12, 12)},
            "mesh.channel=8 must divide the 3x3 positions of the latent",
        ),
    ],
)
def test_a_mesh_that_cannot_be_is_refused(overrides, says):
    found = problems(devices=8, **overrides)
    assert any(re.search(says, problem) for problem in found), found


def test_a_mesh_of_any_axes_passes():
    for sizes in ({"fsdp": 8}, {"channel": 8}, {"fsdp": 2, "channel": 2, "data": 2}):
        named = {f"mesh__{axis}": size for axis, size in sizes.items()}
        assert problems(devices=8, **named) == []
