"""Devices that an evaluation makes of the cores of a machine."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
from deepprism_jax.evaluation.setup import use_cores
use_cores()
import jax
print(jax.device_count())
"""


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, min(len(os.sched_getaffinity(0)), 8)),
        ({"JAX_NUM_CPU_DEVICES": "3"}, 3),
        pytest.param(
            {"XLA_FLAGS": "--xla_force_host_platform_device_count=5"},
            5,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_every_core_is_a_device_unless_that_was_set(variables, expected):
    kept = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment = {**kept, "JAX_PLATFORMS": "cpu", **variables}
    command = [sys.executable, "-c", PROGRAM]
    found = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    )
    assert int(found.stdout) == expected
