"""The mesh: its sizes, whose rows are whose, and what each device runs."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepprism_jax.training.sharding import (
    data_part,
    make_mesh,
    mesh_sizes,
    place_batch,
    replicated,
    spread,
)


def test_every_device_runs_its_own_part_of_the_batch():
    mesh = make_mesh()

    def local(values, batch):
        return batch * values["factor"] + len(batch)

    values = jax.device_put({"factor": jnp.float32(2)}, replicated(mesh))
    batch = place_batch(mesh, np.arange(8, dtype=np.float32))
    compiled = jax.jit(spread(mesh, local)).lower(values, batch).compile()
    np.testing.assert_array_equal(compiled(values, batch), 2 * np.arange(8) + 2)
    assert "all-gather" not in (compiled.as_text() or "")


@pytest.mark.parametrize(
    ("asked", "sizes"),
    [
        ({}, (8, 1, 1)),
        ({"fsdp": 4}, (2, 4, 1)),
        ({"channel": 2, "fsdp": 2}, (2, 2, 2)),
        ({"data": 1, "channel": 8}, (1, 1, 8)),
    ],
)
def test_data_takes_the_devices_that_are_left(asked, sizes):
    assert mesh_sizes(8, **asked) == sizes


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (
            {"fsdp": 3, "channel": 2},
            r"x mesh.channel=2 = 6 must divide .* 8; .* that does is 4",
        ),
        ({"channel": 16}, "the nearest product that does is 8"),
        ({"data": 3, "fsdp": 2}, "must be the number of devices, 8; set --mesh.data 4"),
        ({"fsdp": 0}, "mesh.fsdp=0 must be a number from 1 up"),
        ({"data": -1}, "mesh.data=-1 must be a number from 0 up"),
    ],
)
def test_sizes_that_do_not_give_the_devices_are_refused(asked, says):
    with pytest.raises(ValueError, match=says):
        mesh_sizes(8, **asked)


def test_images_are_on_all_devices_that_share_their_channels():
    mesh = make_mesh(channel=2)
    assert data_part(mesh) == (0, 1)
    batch = place_batch(mesh, np.arange(4))
    rows = {shard.device.id: shard.data.tolist() for shard in batch.addressable_shards}
    assert sorted(rows.values()) == [[0, 1], [0, 1], [2, 3], [2, 3]]
    assert batch.tolist() == [0, 1, 2, 3]


@dataclass(frozen=True)
class Device:
    """A device of some process, as a mesh sees it."""

    id: int
    process_index: int
    platform: str = "cpu"
    device_kind: str = "cpu"


def test_rows_of_a_process_follow_each_other():
    # A TPU counts devices by their place, not by the host that they belong to.
    hosts = [0, 0, 1, 1, 0, 0, 1, 1]
    devices = [Device(i, host) for i, host in enumerate(hosts)]
    for sizes in ({}, {"fsdp": 2}, {"channel": 2}):
        mesh = make_mesh(devices, **sizes)
        found = [device.process_index for device in mesh.devices.flat]
        assert found == [0] * 4 + [1] * 4
