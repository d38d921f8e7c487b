"""A tiny program of each kind, compiled for four chips that are not there."""

import importlib.util

import pytest

from configs import CONFIGS
from deepprism_jax.analysis.plan import make_plan
from deepprism_jax.analysis.plan_sweep import changed
from deepprism_jax.analysis.plan_topology import parse_slice

pytestmark = [
    pytest.mark.slow,
    pytest.mark.tpu,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="libtpu, the compiler for TPUs, is not installed (the extra tpu)",
    ),
]

SMALL = {"width": 16, "blocks": 0, "norm_groups": 8, "downsamples": 1}
# The config, what of it is changed, and collectives that the step cannot do without.
ONCE = {"all-reduce"}
KINDS = {
    "deepprism": ("quickstart", {}, ONCE),
    "kernels": ("quickstart", {"model": {"width": 128}}, ONCE),
    "dense": ("cifar10_dense", {}, ONCE),
    "codes": ("cifar10_vq", {}, ONCE),
    "adversarial": (
        "imagenet256_deepprism",
        {
            "data": {"image_size": (32, 32)},
            "discriminator": {"width": 8},
            "loss": {"perceptual_heads": "lpips"},
        },
        ONCE,
    ),
    "again": ("quickstart", {"train": {"remat": "blocks", "accumulation": 2}}, ONCE),
    "fsdp": (
        "cifar10_dense",
        {"model": {"width": 96}, "mesh": {"fsdp": 4}},
        {*ONCE, "all-gather", "reduce-scatter"},
    ),
    "channel": (
        "quickstart",
        {"mesh": {"channel": 2}},
        {*ONCE, "collective-permute"},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_each_kind_is_compiled(kind):
    name, changes, sent = KINDS[kind]
    config = changed(
        CONFIGS[name].get_config(),
        **{
            "model": SMALL | changes.get("model", {}),
            "data": {"image_size": (16, 16)} | changes.get("data", {}),
            "train": {"batch_size": 8} | changes.get("train", {}),
            **{k: v for k, v in changes.items() if k in ("loss", "discriminator")},
            "mesh": changes.get("mesh", {}),
        },
    )
    plan = make_plan(config, parse_slice("v5e:2x2"))
    assert plan.fits
    assert plan.estimate is not None
    assert 0 < plan.estimate < 1
    found = {collective.kind: collective.bytes for collective in plan.collectives}
    assert sent <= set(found)
    assert (plan.kernels > 0) == (kind == "kernels")
    if sent == ONCE:
        assert set(found) == sent
    if kind == "codes":  # the codes are moving averages, whose sums are sent besides
        assert found["all-reduce"] > plan.parameter_bytes
    elif sent == ONCE:
        # Gradients as parameters, and some numbers for the log. The adaptive weight
        # compares two gradients of the last layer, here a tenth of a tiny network.
        rel = 0.1 if kind == "adversarial" else 0.05
        assert found["all-reduce"] == pytest.approx(plan.parameter_bytes, rel=rel)
