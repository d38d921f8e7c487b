"""A value comes back as it went, however it is cut, and its gradient is the mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from deepprism_jax.training import cuts
from deepprism_jax.training.cuts import make_cut
from deepprism_jax.training.sharding import BATCH_AXES, make_mesh


@pytest.fixture(autouse=True)
def cut_small_values(monkeypatch):
    monkeypatch.setattr(cuts, "LARGE", 16)


@pytest.mark.parametrize(
    ("shape", "sizes", "options", "stored"),
    [
        ((3, 8), {"fsdp": 4}, {}, P(None, "fsdp")),
        ((8, 16), {"fsdp": 2}, {}, P(None, "fsdp")),
        ((3, 7), {"fsdp": 2}, {}, P()),  # nothing divides
        ((8,), {"fsdp": 2}, {}, P()),  # too few numbers
        ((8, 16), {"fsdp": 2, "channel": 2}, {"channel": 1}, P("fsdp", "channel")),
        ((8, 16), {"channel": 2}, {"channel": 0, "fields": 2}, P()),
        ((8, 16), {}, {"channel": 0}, P()),
    ],
)
def test_large_values_are_stored_in_parts(shape, sizes, options, stored):
    assert make_cut(shape, make_mesh(**sizes), **options).stored == stored


@pytest.mark.parametrize("channel", [None, 0, 1])
@pytest.mark.parametrize("fields", [1, 2])
def test_a_value_and_its_gradient_go_through_the_mesh(channel, fields):
    mesh = make_mesh(fsdp=2, channel=2)
    value = jnp.arange(8.0 * 12).reshape(8, 12)
    cut = make_cut(value.shape, mesh, channel=channel, fields=fields)
    assert cut.fsdp is not None
    seen = []

    def local(parts, images):
        here = cuts.whole([cut], parts)
        seen.append(here[0].shape)
        gradient = [here[0] * images.sum()]
        return cuts.mean_gradients([cut], gradient, {"sum": images.sum()})

    specs = cuts.specs_of([cut])
    on_all = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(specs, P(BATCH_AXES)),
        out_specs=(specs, P()),
        check_vma=False,
    )
    gradient, metrics = on_all(cuts.fold([cut], [value]), jnp.array([1.0, 3.0]))
    (gradient,) = cuts.unfold([cut], gradient)
    np.testing.assert_array_equal(gradient, 2.0 * value)
    assert metrics["sum"] == 2.0
    expected = list(value.shape)
    if channel is not None:
        expected[channel] //= 2
    assert seen[0] == tuple(expected)


def test_a_device_keeps_its_part_of_every_field():
    mesh = make_mesh(data=1, channel=4)
    cut = make_cut((16,), mesh, channel=0, fields=2)
    on_all = jax.shard_map(
        lambda parts: cuts.whole([cut], parts)[0],
        mesh=mesh,
        in_specs=(cuts.specs_of([cut]),),
        out_specs=P("channel"),
        check_vma=False,
    )
    locals_ = on_all(cuts.fold([cut], [jnp.arange(16)]))
    assert locals_[:4].tolist() == [0, 1, 8, 9]


def test_what_has_the_name_of_a_value_lives_as_it_does():
    mesh = make_mesh(fsdp=4)
    named = {"kernel": make_cut((8, 8), mesh)}
    zeros = jnp.zeros((8, 8))
    tree = {"mu": {"kernel": zeros}, "count": jnp.zeros(()), "kernel": jnp.zeros(())}
    found = cuts.shardings_like(tree, named, mesh)
    assert found["mu"]["kernel"].spec == named["kernel"].stored != P()
    assert found["count"].spec == found["kernel"].spec == P()
