"""The table of plans, of files as the plan writes them."""

import json
import sys

import pytest
from entry_points import load_program


@pytest.fixture
def plan_table():
    return load_program("scripts/plan_table.py")


PLAN = {
    "batch_size": 4096,
    "needed": 3 * 2**30,
    "available": 2**34,
    "memory": {"temporaries": 2**30, "code": 2**20},
    "collectives": [
        {"kind": "all-reduce", "count": 1, "bytes": 2**17},
        {"kind": "all-gather", "count": 2, "bytes": 2**16},
    ],
    "parameter_bytes": 2**17,
    "operations": 211e9,
    "estimate": 0.0123,
    "seconds": 99.6,
}


def test_every_experiment_on_every_slice_has_a_row(plan_table, tmp_path):
    (tmp_path / "cifar10_vq-v5e-16x16.json").write_text(json.dumps({"plans": [PLAN]}))
    large = PLAN | {"memory": None, "needed": 2**35}
    (tmp_path / "cifar10_vq-v4-2x2x4.json").write_text(json.dumps({"plans": [large]}))
    heading, rule, *rows = plan_table.table(tmp_path)
    assert len(rows) == 60
    columns = len(plan_table.HEADINGS)
    assert {line.count("|") for line in (heading, rule, *rows)} == {columns + 1}
    assert sum("not compiled" in line for line in rows) == 58
    (line,) = (line for line in rows if "| `cifar10_vq` | v5e-256 |" in line)
    assert line.split(" | ")[2:] == [
        "4,096",
        "3 GiB",
        "1 GiB, 1 MiB",
        "1 all-reduce, 2 all-gather",
        "128 KiB, 64 KiB",
        "128 KiB",
        "211 G",
        "12.3 ms",
        "100 s |",
    ]
    assert "| `cifar10_vq` | v4-32 | 4,096 | 32 GiB | does not fit in 16 GiB |" in (
        "\n".join(rows)
    )


def test_missing_plans_are_made_by_the_command(plan_table, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(plan_table, "CONFIGS", {"imagenet256_dense": 8})
    monkeypatch.setattr(plan_table, "SLICES", {"v4-32": "v4:2x2x4"})
    monkeypatch.setattr(
        plan_table.subprocess, "run", lambda command, check: made.append(command)
    )
    assert plan_table.main([str(tmp_path / "plans"), "--compile"]) == 0
    (command,) = made
    words = "plan imagenet256_dense --topology v4:2x2x4 --train.batch-size 128"
    assert command[:3] == [sys.executable, "-m", "deepprism_jax.analysis"]
    assert " ".join(command[3:]).startswith(words)
    assert command[-1] == str(tmp_path / "plans" / "imagenet256_dense-v4-2x2x4.json")
