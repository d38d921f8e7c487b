"""Which plans a sweep makes, and what it makes of them."""

import dataclasses

import pytest
from made_up_plan import TOO_LARGE, a_plan

from configs import CONFIGS
from deepprism_jax.analysis import plan_sweep
from deepprism_jax.analysis.plan_sweep import advice, changed, options, sweep
from deepprism_jax.analysis.plan_topology import parse_slice
from deepprism_jax.training.sharding import mesh_sizes
from deepprism_jax.training.systems import check


@pytest.fixture
def compiler(monkeypatch):
    """Says which configs fit, in place of one that takes minutes."""

    def install(fits, parameter_bytes=4_000):
        def compiled(config, slice_):
            check(config, devices=slice_.devices)
            train = config.train
            sizes = mesh_sizes(slice_.devices, **dataclasses.asdict(config.mesh))
            plan = a_plan(train.batch_size, fits=fits(config))
            return dataclasses.replace(
                plan,
                mesh=dict(zip(("data", "fsdp", "channel"), sizes, strict=True)),
                parts=sizes[0] * sizes[1],
                remat=train.remat,
                accumulation=train.accumulation,
                parameter_bytes=parameter_bytes,
            )

        monkeypatch.setattr(plan_sweep, "make_plan", compiled)

    return install


def swept(**groups):
    config = changed(CONFIGS["quickstart"].get_config(), **groups)
    plans = list(sweep(config, parse_slice("v5e:4x4")))
    return plans, [options(plan, plans[0]) for plan in plans]


@pytest.mark.parametrize(
    ("largest", "tried"),
    [
        (256, [64, 128, 256, 512, 512]),
        (10**9, [64, 128, 256, 512, 1024]),
        (64, [64, 128, 128]),
    ],
)
def test_a_batch_that_fits_is_doubled_until_one_does_not(compiler, largest, tried):
    compiler(lambda config: config.train.batch_size <= largest)
    plans, said = swept(train={"batch_size": 64})
    assert [plan.batch_size for plan in plans] == tried
    if not plans[-1].fits:
        assert said[-1] == f"--train.batch-size {tried[-1]} --train.remat blocks"


def test_what_takes_less_memory_is_added_until_it_fits(compiler):
    compiler(lambda config: config.train.accumulation == 4)
    plans, said = swept(train={"batch_size": 64})
    base = "--train.batch-size 64"
    assert said == [
        base,
        f"{base} --train.remat blocks",
        f"{base} --train.accumulation 2 --train.remat blocks",
        f"{base} --train.accumulation 4 --train.remat blocks",
    ]
    assert advice(plans) == (
        f"advice: {said[-1]} fits, 1 image at once; as the config is, it does not"
    )


def test_parameters_are_cut_first_where_they_are_large(compiler):
    compiler(lambda config: config.mesh.fsdp > 1, parameter_bytes=2**32)
    plans, said = swept(model={"conv": "dense"}, train={"batch_size": 64})
    assert said[1:] == ["--train.batch-size 64 --mesh.fsdp 16"]
    assert plans[1].mesh == {"data": 1, "fsdp": 16, "channel": 1}


def test_channels_are_cut_where_one_image_is_too_much(compiler):
    compiler(lambda config: config.mesh.channel >= 4)
    plans, said = swept(
        train={"batch_size": 16, "remat": "blocks"}, model={"norm_groups": 32}
    )
    assert said[1:] == [
        "--train.batch-size 16 --train.accumulation 2 --mesh.channel 2",
        "--train.batch-size 16 --train.accumulation 4 --mesh.channel 4",
    ]
    assert plans[-1].micro_batch == 1


def test_what_cannot_be_cut_is_not_tried(compiler):
    compiler(lambda config: False)
    plans, said = swept(
        train={"batch_size": 16, "remat": "blocks"}, model={"conv": "group"}
    )
    assert len(plans) == 1
    assert "nothing that was tried fits (--train.batch-size 16)" in advice(plans)
    assert said == ["--train.batch-size 16"]


def test_advice_takes_the_largest_batch_that_fits():
    assert advice([a_plan(32), a_plan(64), TOO_LARGE]) == (
        "advice: --train.batch-size 64 fits, 2 images at once; 128 does not"
    )
    again = dataclasses.replace(a_plan(128), remat="blocks")
    assert advice([a_plan(64), TOO_LARGE, again]) == (
        "advice: --train.batch-size 64 fits, 2 images at once; 128 does not, but does "
        "with --train.batch-size 128 --train.remat blocks"
    )
    assert advice([a_plan(32)]) == (
        "advice: --train.batch-size 32 fits, 1 image at once, and takes 6.2% of its "
        "memory; larger ones were not tried"
    )
