import dataclasses
import re

import pytest

from deepprism_jax.ops.native import library
from deepprism_jax.training.autoencoder.system import batch_line, data_line, networks
from deepprism_jax.training.config import (
    Config,
    LossConfig,
    MeshConfig,
    OptimizerConfig,
)
from deepprism_jax.training.setup import Data
from deepprism_jax.training.summary import (
    devices_line,
    learning_rate_line,
    mesh_line,
    norm_lines,
    parameters_line,
)


def config(**groups):
    return dataclasses.replace(Config(), **groups)


@pytest.mark.parametrize(
    ("optimizer", "line"),
    [
        (
            OptimizerConfig(),
            "learning rate: 0.001 (as given, not scaled by the batch), adam, constant",
        ),
        (
            OptimizerConfig(learning_rate=1e-7, scale_by_batch=True, warmup_steps=10),
            "learning rate: 6.4e-06 (base 1e-07 x batch 64), adam, 10 warm-up steps, "
            "then constant",
        ),
        (
            OptimizerConfig(name="lion", schedule="cosine", final_ratio=0.1),
            "learning rate: 0.001 (as given, not scaled by the batch), lion, "
            "cosine to 0.1 of it",
        ),
    ],
)
def test_learning_rate_says_how_it_came_about(optimizer, line):
    assert learning_rate_line(config(optimizer=optimizer)) == line


def test_batch_is_told_by_device_and_accumulation():
    train = dataclasses.replace(Config().train, batch_size=64, accumulation=2)
    assert batch_line(config(train=train)) == (
        "batch: 64 images = 4 devices x 2 accumulation steps x 8 images"
    )


def test_a_mesh_in_words():
    train = dataclasses.replace(Config().train, remat="blocks")
    cut = config(mesh=MeshConfig(channel=2), train=train)
    assert mesh_line(cut) == "mesh: data 2 x fsdp 1 x channel 2, recomputing blocks"
    assert batch_line(cut) == (
        "batch: 64 images = 2 parts of 2 devices x 1 accumulation step x 32 images"
    )


def test_data_in_words():
    data = Data(train=None, held_out=None, train_images=50_000, held_out_images=10_000)
    assert data_line(Config(), data) == (
        "data: photos, 50,000 images to train on and 10,000 to evaluate on, at 32x32"
    )


@pytest.mark.parametrize(
    ("loaded", "kernels"), [(True, "with C"), (False, "without C.*ops.native` builds")]
)
def test_devices_in_words(monkeypatch, loaded, kernels):
    monkeypatch.setattr(library, "loaded", lambda: loaded)
    line = rf"devices: 4 x cpu \(cpu\) in 1 process, {kernels}.*"
    assert re.fullmatch(line, devices_line(Config()))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"width": 128, "fields": 8}, ""),
        ({"width": 120, "fields": 6}, ", but not for .* / model.fields = 20 is no .*"),
        ({"width": 120, "conv": "prism_separable"}, ", but not for .* = 120 is no .*"),
        ({"width": 120, "fields": 6, "conv": "dense"}, ""),
        ({"width": 8, "fields": 8}, ""),
    ],
)
def test_channels_that_the_kernels_do_not_take_are_told(monkeypatch, options, said):
    monkeypatch.setattr(library, "loaded", lambda: True)
    model = dataclasses.replace(Config().model, **options)
    line = devices_line(config(model=model))
    assert re.fullmatch(rf".*, with C\+\+ kernels{said}", line)


def test_channels_cut_over_devices_are_what_a_kernel_takes(monkeypatch):
    monkeypatch.setattr(library, "loaded", lambda: True)
    model = dataclasses.replace(Config().model, width=96, fields=2)
    assert devices_line(config(model=model)).endswith("kernels")
    cut = config(model=model, mesh=MeshConfig(channel=2))
    assert " / mesh.channel = 24 is no multiple of 16" in devices_line(cut)


@pytest.mark.parametrize(("width", "fewer"), [(32, 8), (30, 6), (14, 2)])
def test_a_norm_group_of_one_channel_is_told(width, fewer):
    model = dataclasses.replace(Config().model, width=width, norm_groups=width)
    (line,) = norm_lines(config(model=model))
    assert f"{width} for {width} channels" in line
    assert f"--model.norm-groups {fewer} " in line
    assert norm_lines(config()) == []


def test_parameters_are_those_of_the_paper():
    numbers = re.findall(r"[\d,]+$|[\d,]+(?=, )", parameters_line(Config()))
    assert sum(int(number.replace(",", "")) for number in numbers) == 57_847


def test_networks_are_those_that_the_losses_need():
    assert set(networks(Config())) == {"autoencoder"}
    loss = LossConfig(adversarial_weight=0.5, perceptual_weight=1.0)
    found = networks(config(loss=loss))
    assert set(found) == {"autoencoder", "discriminator", "perceptual"}
    assert found["perceptual"]["layer_weights"].shape == (7,)
    heads = dataclasses.replace(loss, perceptual_heads="heads.npz")
    assert "perceptual" not in networks(config(loss=heads))
