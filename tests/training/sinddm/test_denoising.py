"""Training of single-image denoisers: laws over meshes and ensembles, and pictures."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from deepprism_jax.layers.dense import Conv
from deepprism_jax.training.config import MeshConfig, OptimizerConfig, TrainConfig
from deepprism_jax.training.preflight import PreflightError
from deepprism_jax.training.sharding import make_mesh
from deepprism_jax.training.sinddm import trainer as trainer_module
from deepprism_jax.training.sinddm.config import (
    DiffusionConfig,
    PictureConfig,
    SinDDMConfig,
)
from deepprism_jax.training.sinddm.pictures import read_pictures
from deepprism_jax.training.sinddm.steps import Steps, scale_probabilities
from deepprism_jax.training.sinddm.system import check, mesh_shape, open_data
from deepprism_jax.training.sinddm.trainer import SinDDMTrainer

CONFIG = SinDDMConfig(
    diffusion=DiffusionConfig(coarsest=6, times=10),
    optimizer=OptimizerConfig(learning_rate=1e-2, clip_norm=0.1),
    train=TrainConfig(steps=3, batch_size=2, ema_decay=0.5),
)


class Tiny(nnx.Module):
    """A denoiser that is quick to compile."""

    def __init__(self, rngs):
        self.conv = Conv(3, 3, rngs=rngs)
        self.times = nnx.Param(jnp.ones((2, 3)))

    def __call__(self, x, t, scale):
        both = jnp.stack([t / 10, scale], axis=-1).astype(jnp.float32)
        return self.conv(x) + (both @ self.times[...])[:, None, None]


@pytest.fixture(scope="module", autouse=True)
def quickly():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "make_denoiser", lambda config, rngs: Tiny(rngs))
        yield


def pictures(count):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, 8, 10, 3), np.uint8)
    return {f"image{number}": image for number, image in enumerate(pixels)}


def trained(images, *, steps=3, config=CONFIG, **mesh):
    devices = jax.devices()[: np.prod(list(mesh.values()), dtype=int)]
    trainer = SinDDMTrainer(config, make_mesh(devices, **mesh), images)
    state = trainer.init()
    for number in range(steps):
        state, metrics = trainer.step(state, {"scale": number % 2})
    values = jax.device_get(trainer.inference_values(state))
    return values, float(metrics["loss"]), trainer


def close(found, expected):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_allclose(
            value, expected[name], rtol=2e-4, atol=2e-6, err_msg=name
        )


@pytest.fixture(scope="module")
def together():
    return trained(pictures(2), data=1)


def test_models_that_train_together_are_those_that_train_alone(together):
    """With clipping, which must not mix them."""
    values, _, trainer = together
    alone, _, _ = trained({"image1": pictures(2)["image1"]}, data=1)
    models = trainer.models(values)
    assert list(models) == ["image0", "image1"]
    close({name: x[1] for name, x in values.items()}, alone)
    assert any(np.abs(x[0] - x[1]).max() > 1e-4 for x in values.values())


def test_the_mesh_does_not_matter(together):
    """A model on each of two devices, each batch shared by two."""
    values, loss, trainer = trained(pictures(2), data=2, fsdp=2)
    where = trainer.state_sharding.params["denoiser"]["conv.bias"]
    assert where.spec == jax.sharding.PartitionSpec("data")
    close(values, together[0])
    assert loss == pytest.approx(together[1], rel=1e-5)


@pytest.mark.parametrize("name", ["adam", "soap"])
def test_models_are_moved_and_averaged_on_their_device(name):
    config = replace(CONFIG, optimizer=replace(CONFIG.optimizer, name=name))
    values, _, trainer = trained(pictures(4), config=config, data=2)
    alone, _, _ = trained({"image3": pictures(4)["image3"]}, config=config, data=1)
    close({name: x[3] for name, x in values.items()}, alone)
    program = trainer.lower_step().compile().as_text()
    assert "all-reduce" in program  # of the norm of all gradients, for the log
    assert "all-gather" not in program


def test_small_scales_are_drawn_more_often():
    sizes = [(10, 10), (20, 20)]
    np.testing.assert_allclose(scale_probabilities(sizes, 0.0), [0.5, 0.5])
    np.testing.assert_allclose(scale_probabilities(sizes, 0.5), [2 / 3, 1 / 3])


def test_steps_go_on_from_where_they_were():
    sizes = [(10, 10), (14, 14), (20, 20)]
    whole, other = (Steps(sizes, 0.0, seed=3, images=1) for _ in range(2))
    scales = [next(whole)["scale"] for _ in range(60)]
    assert set(scales) == {0, 1, 2}
    other.set_state({"batch": 40, "images": 1})
    assert [next(other)["scale"] for _ in range(20)] == scales[40:]
    assert other.get_state() == whole.get_state()


def save(path, size, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, 100).save(path)
    return str(path)


def test_images_keep_their_shape_and_get_their_channels(tmp_path):
    path = save(tmp_path / "a.png", (300, 100), "L")
    (name, image), *_ = read_pictures(PictureConfig(path=path, longest=60)).items()
    assert name == "a"
    assert image.shape == (20, 60, 3)
    whole = read_pictures(PictureConfig(path=path, longest=0, channels=1))
    assert whole["a"].shape == (100, 300, 1)


def test_images_of_a_folder_have_one_size(tmp_path):
    save(tmp_path / "a.png", (40, 30))
    save(tmp_path / "deep" / "b.png", (30, 40))
    config = PictureConfig(path=str(tmp_path))
    with pytest.raises(ValueError, match=r"deep-b has 40x30 .*--data.image-size"):
        read_pictures(config)
    found = read_pictures(replace(config, image_size=(20, 24)))
    assert {k: v.shape for k, v in found.items()} == {
        "a": (20, 24, 3),
        "deep-b": (20, 24, 3),
    }
    save(tmp_path / "a.jpg", (40, 30))
    with pytest.raises(ValueError, match="have one name"):
        read_pictures(config)


def test_a_photograph_is_there_without_a_path():
    assert read_pictures(PictureConfig(longest=50))["china"].shape == (33, 50, 3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": PictureConfig(path="nowhere.png")}, "nowhere.png' is not there"),
        ({"data": PictureConfig(longest=40)}, "too small"),
        ({"data": PictureConfig(channels=2)}, "data.channels=2"),
        ({"data": PictureConfig(image_size=(40, 0))}, r"image_size=\(40, 0\)"),
        ({"data": PictureConfig(image_size=(999, 999))}, "larger than an image"),
    ],
)
def test_images_that_will_not_do_are_refused(changes, says):
    with pytest.raises(PreflightError, match=says):
        open_data(SinDDMConfig(**changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train": TrainConfig(keep_best=1)}, "keep_best=1: .* no score"),
        ({"train": TrainConfig(accumulation=2)}, "accumulation=2"),
        ({"mesh": MeshConfig(channel=2)}, "channel=2: .*--mesh.channel 1"),
        ({"mesh": MeshConfig(data=3)}, "data=3 must divide the 4 devices"),
        ({"diffusion": DiffusionConfig(factor=1.0)}, "factor=1.0 must be above 1"),
        ({"diffusion": DiffusionConfig(times=1)}, "times=1 must be a number from 2 up"),
    ],
)
def test_what_contradicts_itself_is_refused(changes, says):
    with pytest.raises(PreflightError, match=says):
        check(SinDDMConfig(**changes), devices=4)


def test_devices_share_models_first_and_then_copies(tmp_path):
    for number in range(6):
        save(tmp_path / f"{number}.png", (64, 64))
    config = replace(CONFIG, data=PictureConfig(path=str(tmp_path)))
    assert mesh_shape(config, 4) == {"data": 2, "fsdp": 2, "channel": 1}
    with pytest.raises(PreflightError, match=r"batch_size=2 .* by the 4 .* is 4"):
        mesh_shape(replace(config, mesh=MeshConfig(fsdp=4)), 4)
    with pytest.raises(PreflightError, match="data=4 must divide the 6 models"):
        mesh_shape(replace(config, mesh=MeshConfig(data=4)), 4)
