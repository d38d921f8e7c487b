"""A checkpoint is restored onto another mesh and by other processes."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from restoring_child import check, place, targets

from deepprism_jax.training.checkpoints import Checkpoints
from deepprism_jax.training.sharding import make_mesh
from deepprism_jax.weights.items import steps

CHILD = Path(__file__).with_name("restoring_child.py")


def test_a_state_goes_from_mesh_to_mesh_and_back(tmp_path):
    """Replicated and cut arrays, over 4, 2, 1 and again 4 devices."""
    meshes = [
        make_mesh(),
        make_mesh(fsdp=4),
        make_mesh(jax.devices()[:2], channel=2),
        make_mesh(jax.devices()[:1]),
        make_mesh(fsdp=2, channel=2),
        make_mesh(channel=4),
    ]
    checkpoints = Checkpoints(tmp_path, keep=2, say=print)
    for step, mesh in enumerate(meshes):
        if step:
            found, items = checkpoints.restore(targets(mesh))
            assert found == step - 1
            check(mesh, items, found)
        checkpoints.save(
            step, {"state": place(mesh, step), "data": {"batch": step, "of": 0}}
        )


def start(**asked):
    with socket.socket() as one:
        one.bind(("localhost", 0))
        asked["port"] = one.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, str(CHILD), json.dumps({**asked, "index": index})],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(asked["count"])
    ]


@pytest.mark.slow
def test_a_state_goes_from_processes_to_processes(tmp_path):
    """8 devices of one process, of 2, 1 process of 2, of 1, then 4 of 2 each."""
    for number, (count, devices, axes) in enumerate(
        [
            (1, 8, {"fsdp": 4, "channel": 2}),
            (2, 2, {"fsdp": 2, "channel": 2}),
            (1, 2, {"fsdp": 2}),
            (1, 1, {}),
            (4, 2, {"fsdp": 2, "channel": 2}),
            (2, 1, {"channel": 2}),
            (1, 8, {"channel": 8}),
        ]
    ):
        children = start(
            count=count,
            devices=devices,
            axes=axes,
            directory=str(tmp_path),
            restore=number > 0,
        )
        said = [child.communicate(timeout=300)[0] for child in children]
        codes = [child.returncode for child in children]
        assert codes == [0] * count, "\n".join(said)
    assert steps(tmp_path) == list(range(1, 8))
