"""Single-image diffusion in real processes: each trains the models of its devices."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]

sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from launch import Processes, photographs  # noqa: E402

from deepprism_jax.layers.functional import values_of  # noqa: E402
from deepprism_jax.models.sinddm import SinDDM  # noqa: E402

OPTIONS = {
    "data.image-size": ("16", "16"),
    "diffusion.coarsest": "12",
    "diffusion.times": "10",
    "model.width": "16",
    "model.groups": "4",
    "optimizer.name": "adam",
    "optimizer.schedule": "constant",
    "optimizer.warmup-steps": "0",
    "train.log-every": "1",
    "train.eval-every": "2",
    "train.save-every": "2",
}


@pytest.mark.slow
def test_models_are_those_of_one_process_also_when_it_goes_on_alone(tmp_path):
    photographs(tmp_path, train=4, test=0)
    cache = tmp_path / "cache"

    def run(name, count, steps, *more):
        argv = ["sinddm_deepprism", "--data.path", tmp_path / "train"]
        argv += ["--workdir", tmp_path / name, "--train.steps", str(steps), *more]
        for option, value in OPTIONS.items():
            argv += [f"--{option}", *([value] if isinstance(value, str) else value)]
        with Processes(argv, count, cache=cache, devices=2 // count) as processes:
            codes, outputs, errors = processes.ends(timeout=600)
        assert codes == [0] * count, (outputs, errors)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        read = [json.loads(line) for line in lines]
        keys = "loss", "eval/loss"
        return {(x["step"], key): x[key] for x in read for key in keys if key in x}

    whole = run("whole", 1, 4)
    run("parts", 2, 2)
    parts = run("parts", 1, 4, "--resume")
    assert len(whole) == 4 + 3
    assert parts == pytest.approx(whole, rel=1e-4)
    for image in range(4):
        expected, found = (
            values_of(SinDDM.from_pretrained(tmp_path / name, model=str(image)))
            for name in ("whole", "parts")
        )
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)
