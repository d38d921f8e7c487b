"""Autoencoders in diffusers' layout: golden/make_autoencoder_kl.py, and diffusers."""

import json
import logging
from pathlib import Path

import jax
import made_up_folder
import numpy as np
import pytest

from deepprism_jax.layers.functional import values_of
from deepprism_jax.models import AutoencoderKL
from deepprism_jax.weights.__main__ import main
from deepprism_jax.weights.diffusers_config import describe
from deepprism_jax.weights.pretrained import class_name

with np.load(Path(__file__).parent / "golden" / "autoencoder_kl.npz") as file:
    GOLDEN = {name: file[name] for name in file.files}

QUICK = {"xla_backend_optimization_level": 0}


def made_up(name="levels"):
    """Config and weights as diffusers writes them."""
    config = json.loads(str(GOLDEN[f"{name}.config"]))
    shapes = json.loads(str(GOLDEN[f"{name}.shapes"]))
    return config, made_up_folder.state_dict(shapes)


@pytest.fixture
def folder(tmp_path):
    return made_up_folder.write(tmp_path / "vae", *made_up())


def outputs(model, x, z):
    def run(x, z):
        posterior = model.encode(x)
        return posterior.mean, posterior.logvar, model.decode(z)

    return jax.jit(run, compiler_options=QUICK)(x, z)


@pytest.mark.parametrize("name", made_up_folder.CONFIGS)
def test_equals_the_module_of_diffusers(tmp_path, name):
    config, state = made_up(name)
    made_up_folder.write(tmp_path, config, state)
    model = AutoencoderKL.from_diffusers(tmp_path)
    x = made_up_folder.images(config["in_channels"])
    expected = [GOLDEN[f"{name}.{key}"] for key in ("mean", "logvar", "images")]
    for y, golden in zip(outputs(model, x, expected[0]), expected, strict=True):
        assert golden.std() > 0.4
        np.testing.assert_allclose(y, golden, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", made_up_folder.CONFIGS)
def test_equals_diffusers_that_is_installed(tmp_path, name):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    module = diffusers.AutoencoderKL(**made_up_folder.CONFIGS[name]).eval()
    module.save_pretrained(tmp_path)
    x = made_up_folder.images(module.config.in_channels)
    with torch.no_grad():
        posterior = module.encode(torch.tensor(x.transpose(0, 3, 1, 2).copy()))
        mean, logvar = posterior.latent_dist.mean, posterior.latent_dist.logvar
        images = module.decode(mean).sample
    expected = [y.numpy().transpose(0, 2, 3, 1) for y in (mean, logvar, images)]
    found = outputs(AutoencoderKL.from_diffusers(tmp_path), x, expected[0])
    for y, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(y, theirs, rtol=0, atol=1e-5)


def same(model, other):
    jax.tree.map(np.testing.assert_array_equal, values_of(model), values_of(other))


def test_old_names_and_half_precision_are_read(tmp_path, folder):
    config, state = made_up()
    half = {name: x.astype(np.float16) for name, x in state.items()}
    named = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for name, x in half.items():
        for new, before in named.items():
            if f".attentions.0.{new}." in name:
                name = name.replace(new, before)
                x = x[..., None, None] if x.ndim == 2 else x
        old[name] = x
    assert sum("proj_attn" in name for name in old) == 4
    new_keys = ("use_quant_conv", "use_post_quant_conv", "mid_block_add_attention")
    config = {k: v for k, v in config.items() if k not in new_keys}
    variant = "diffusion_pytorch_model.fp16.safetensors"
    made_up_folder.write(tmp_path / "old", config, old, variant)
    model = AutoencoderKL.from_diffusers(tmp_path / "old")
    assert {x.dtype for x in values_of(model).values()} == {np.dtype("float32")}
    widened = {name: x.astype(np.float32) for name, x in half.items()}
    made_up_folder.write(folder, made_up()[0], widened)
    same(model, AutoencoderKL.from_diffusers(folder))


def test_the_command_writes_an_export_once(tmp_path, folder, capsys):
    export = tmp_path / "export"
    assert main(["import", str(folder), str(export)]) == 0
    count = sum(x.size for x in made_up()[1].values())
    lines = [
        f"{export}: {count:,} parameters, 4 numbers for every 4 x 4 pixels",
        "its makers' scaling_factor 0.18215 is not applied: training measures its own",
    ]
    assert capsys.readouterr().out.splitlines() == lines
    model = AutoencoderKL.from_diffusers(str(folder))
    again = AutoencoderKL.from_pretrained(export)
    same(again, model)
    assert again.options == model.options
    assert model.options["multipliers"] == (1, 2, 2)
    assert model.options["width"] == 8

    before = (export / "model.safetensors").read_bytes()
    for source, output, message in (
        (folder, export, f"{export} is there: choose another directory, or delete it"),
        (export, tmp_path / "new", "is an export of this package: nothing is to be"),
        (tmp_path / "no", tmp_path / "new", "no has no config.json: give the folder"),
    ):
        assert main(["import", str(source), str(output)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert message in line
    assert (export / "model.safetensors").read_bytes() == before
    assert not (tmp_path / "new").exists()


def test_how_its_makers_scale_latents_is_told(tmp_path, folder):
    assert describe(folder).scaling == {"scaling_factor": 0.18215}
    made_up_folder.write(tmp_path / "ends", *made_up("ends"))
    scaling = {"scaling_factor": 0.3611, "shift_factor": 0.1159}
    assert describe(tmp_path / "ends").scaling == scaling


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "VQModel"}, r"vae holds 'VQModel' of diffusers, and Auto"),
        (
            {"_class_name": None},
            r"vae holds None of diffusers, and AutoencoderKL alone",
        ),
        ({"act_fn": "relu"}, r"act_fn='relu' must be silu: nothing else is supported"),
        (
            {"down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]},
            r"down_block_types=\['Down.*, 'AttnDownEncoderBlock2D'\] must be DownEnc",
        ),
        (
            {"up_block_types": ["UpDecoderBlock2D"] * 2},
            r"up_block_types=.* must be 3 of them, as block_out_channels=\[8, 16, 16\]",
        ),
        ({"out_channels": 4}, r"out_channels=4 must be in_channels=3"),
        ({"latent_channels": "4"}, r"latent_channels='4' must be a positive integer"),
        ({"block_out_channels": 8}, r"block_out_channels=8 must be a list of positive"),
        ({"use_quant_conv": 1}, r"use_quant_conv=1 must be true or false"),
        ({"norm_num_groups": 3}, r"config.json contradicts itself: norm groups=3 must"),
        (
            {"latent_channels": 3},
            r"is not of the network in its config.json: decoder.conv_in.weight has "
            r"shape \(16, 4, 3, 3\), not \(16, 3, 3, 3\); bring both files from one",
        ),
        (
            {"layers_per_block": 2},
            r"it has no decoder.up_blocks.0.resnets.2.conv1.bias; bring both",
        ),
        (
            {"mid_block_add_attention": False},
            r"it has 20 tensors in excess: decoder.mid_block.attentions.0.group_norm",
        ),
    ],
)
def test_a_config_that_does_not_fit(folder, changes, message):
    config, _ = made_up()
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ValueError, match=message) as caught:
        AutoencoderKL.from_diffusers(folder)
    assert str(caught.value).count("\n") == 0


def test_files_that_are_missing_or_damaged(folder):
    def fail(path, match, error=ValueError, load=AutoencoderKL.from_diffusers):
        with pytest.raises(error, match=match) as caught:
            load(path)
        assert str(caught.value).count("\n") == 0

    fail(folder.parent, f"has no config.json: give {folder}", FileNotFoundError)
    fail(folder / "x", "x has no config.json: give the folder of", FileNotFoundError)
    import_it = "vae is of diffusers: run python -m deepprism_jax.weights import"
    fail(folder, import_it, load=AutoencoderKL.from_pretrained)
    fail(folder, import_it, load=class_name)

    weights = folder / "diffusion_pytorch_model.safetensors"
    config, state = made_up()
    state["encoder.conv_in.bias"][0] = np.nan
    made_up_folder.write(folder, config, state)
    fail(folder, "encoder.conv_in.bias has values that are not finite")
    weights.write_bytes(weights.read_bytes()[:-1])
    fail(folder, r"cannot read weights file .*diffusion_pytorch_model.safetensors: ")
    weights.unlink()
    fail(folder, "has no diffusion_pytorch_model.safetensors", FileNotFoundError)
    (folder / "config.json").write_text("[]")
    fail(folder, "config.json is damaged: bring it again")


def test_what_a_config_has_besides_is_named(folder, caplog):
    config, _ = made_up()
    (folder / "config.json").write_text(json.dumps(config | {"tiling": 1}))
    with caplog.at_level(logging.WARNING):
        describe(folder)
    assert "config.json: tiling not known here, and ignored" in caplog.text
