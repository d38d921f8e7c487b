"""Latent diffusion in real processes: each encodes its share and trains with all."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

ROOT = Path(__file__).parents[2]

sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from launch import Processes, photographs  # noqa: E402

from deepprism_jax.models import AutoencoderKL  # noqa: E402
from deepprism_jax.models.unet import UNet  # noqa: E402

OPTIONS = {
    "autoencoder.factor": "2",
    "data.source": "folder",
    "data.encode-batch": "8",
    "model.width": "8",
    "model.fields": "1",
    "model.norm-groups": "4",
    "model.multipliers": ("1", "1"),
    "model.attention": ("2",),
    "model.blocks": "1",
    "model.classes": "0",
    "optimizer.warmup-steps": "0",
    "train.steps": "4",
    "train.batch-size": "8",
    "train.log-every": "1",
    "train.eval-every": "0",
    "train.save-every": "2",
}


@pytest.mark.slow
def test_the_number_of_processes_does_not_change_the_run(tmp_path):
    folder = photographs(tmp_path / "photographs")
    autoencoder = AutoencoderKL(
        width=8,
        norm_groups=4,
        downsamples=1,
        blocks=0,
        attention=False,
        rngs=nnx.Rngs(0),
    )
    autoencoder.save_pretrained(tmp_path / "autoencoder")

    def argv(name):
        found = ["ldm_cifar10_deepprism", "--data.path", folder]
        found += ["--data.image-size", "16", "16", "--workdir", tmp_path / name]
        found += ["--autoencoder.path", tmp_path / "autoencoder"]
        found += ["--data.latents", tmp_path / f"latents-{name}"]
        for option, value in OPTIONS.items():
            found += [f"--{option}", *([value] if isinstance(value, str) else value)]
        return found

    losses, values = {}, {}
    for count in (1, 2):
        name = f"run{count}"
        cache = tmp_path / "cache"
        with Processes(argv(name), count, cache=cache, devices=2 // count) as run:
            codes, outputs, errors = run.ends(timeout=600)
        assert codes == [0] * count, (outputs, errors)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        read = [json.loads(line) for line in lines]
        losses[count] = [line["loss"] for line in read if "loss" in line]
        losses[count] += [line["eval/loss"] for line in read if "eval/loss" in line]
        model = UNet.from_pretrained(tmp_path / name)
        values[count] = model.latent_mean[...], model.latent_std[...]
        parts = (tmp_path / f"latents-{name}").glob("train-*/*.json")
        assert len(list(parts)) == count
    assert len(losses[1]) == 4 + 2
    np.testing.assert_allclose(losses[2], losses[1], rtol=1e-5)
    np.testing.assert_allclose(values[2], values[1], rtol=1e-5)
