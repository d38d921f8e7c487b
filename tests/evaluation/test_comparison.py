"""Which data, which methods, and how many numbers each needs."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx

from deepprism_jax.evaluation import comparison
from deepprism_jax.evaluation.trained import Trained
from deepprism_jax.models import AutoencoderKL, AutoencoderVQ
from deepprism_jax.training.config import DataConfig
from deepprism_jax.training.preflight import PreflightError

TINY = {"width": 8, "blocks": 0, "norm_groups": 4, "attention": False}


def abstract(kind=AutoencoderKL, data=None, **options):
    """A model of shapes alone, which is made at once."""
    model = nnx.eval_shape(lambda: kind(**TINY, **options, rngs=nnx.Rngs(0)))
    return Trained(model, data)


def filled(model):
    graphdef, state = nnx.split(model)
    zeros = jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), state)
    return nnx.merge(graphdef, zeros)


@pytest.fixture(scope="module")
def tiny():
    return Trained(filled(abstract().model))


def test_code_size_is_what_encode_gives():
    assert abstract().code_size((32, 32, 3)) == 8 * 8 * 3
    assert abstract(z_channels=5, downsamples=1).code_size((8, 12, 3)) == 4 * 6 * 5
    assert abstract(AutoencoderVQ, codebook_size=16).code_size((32, 16, 3)) == 8 * 4


def test_parameters_count_the_codes_but_not_their_usage():
    kl = abstract()
    leaves = jax.tree.leaves(nnx.to_pure_dict(nnx.state(kl.model, nnx.Param)))
    assert kl.parameters == sum(leaf.size for leaf in leaves)
    one, other = (abstract(AutoencoderVQ, codebook_size=n).parameters for n in (16, 17))
    assert other - one == 3


class Dimmer(nnx.Module):
    def __init__(self):
        self.factor = nnx.Param(jax.numpy.float32(0.5))

    def reconstruct(self, x):
        return self.factor[...] * x


def test_the_model_sees_and_gives_minus_one_to_one_behind_8_bit_images():
    images = np.array([0, 1, 100, 127, 128, 200, 255], np.uint8).reshape(1, 1, 7, 1)
    made, finite = Trained(Dimmer()).reconstructor()(images)
    assert finite.all()
    expected = (0.5 * (images / 127.5 - 1) + 1) * 127.5
    assert made.dtype == np.uint8
    assert np.abs(np.asarray(made, np.float64) - expected).max() <= 0.501


def test_data_are_those_of_training_but_for_what_is_given():
    data = DataConfig(source="tfds", name="mnist", path="/data", eval_split="test")
    run = abstract(data=data, image_channels=1)
    chosen = comparison.choose_data(run, eval_split="train[:9]", path=None)
    assert chosen == DataConfig(
        source="tfds", name="mnist", path="/data", eval_split="train[:9]", channels=1
    )
    other = comparison.choose_data(run, source="cifar10", path="/cifar")
    assert other == DataConfig(source="cifar10", path="/cifar", channels=1)


def test_an_export_needs_a_source():
    with pytest.raises(PreflightError, match="give --source"):
        comparison.choose_data(abstract(), path="/data")
    assert comparison.choose_data(abstract(), source="photos") == DataConfig()


def test_methods_are_the_model_bicubic_and_pca(tiny, monkeypatch):
    monkeypatch.setattr(comparison, "FEWEST", 40)
    monkeypatch.setattr(comparison, "CHUNK", 20)
    data = DataConfig(image_size=(8, 12))
    methods, notes = comparison.make_methods(tiny, data)
    assert list(methods) == ["model", "bicubic 4x", "PCA-18"]
    assert {method.code for method in methods.values()} == {2 * 3 * 3}
    assert methods["PCA-18"].parameters == (18 + 1) * 8 * 12 * 3
    assert notes == ["PCA-18 was fitted on 40 images of split 'train'"]
    images = np.zeros((3, 8, 12, 3), np.uint8)
    for method in methods.values():
        made = method.reconstruct(images).pixels
        assert (made.shape, made.dtype) == (images.shape, np.uint8)


@pytest.mark.parametrize(
    ("size", "code", "expected"),
    [
        ((32, 32), 192, 4),
        ((32, 32), 191, 8),
        ((32, 32), 3 * 32 * 32, 1),
        ((24, 36), 3 * 4 * 6, 6),
        ((32, 32), 1, 32),
    ],
)
def test_the_matching_factor_gives_no_more_numbers_than_the_code(size, code, expected):
    assert comparison.matching_factor(DataConfig(image_size=size), code) == expected


def test_bicubic_is_measured_at_the_factor_of_the_code_too():
    model = abstract(downsamples=3, z_channels=12)
    model = replace(model, model=filled(model.model))
    methods, _ = comparison.make_methods(
        model, DataConfig(image_size=(8, 16), train_split="none")
    )
    codes = {name: method.code for name, method in methods.items()}
    assert codes == {"model": 24, "bicubic 4x": 24, "bicubic 8x": 6}


def test_too_few_training_images_are_told(tiny, monkeypatch):
    monkeypatch.setattr(comparison, "FEWEST", 10)
    monkeypatch.setattr(comparison, "CHUNK", 10)
    monkeypatch.setattr(comparison, "MOST", 10)
    methods, notes = comparison.make_methods(tiny, DataConfig(image_size=(8, 16)))
    assert list(methods)[2] == "PCA-9"
    assert notes == [
        "PCA-9 was fitted on 10 images of split 'train', which have no 24 independent "
        "components"
    ]


def test_pca_is_left_out_where_there_is_no_training_split(tiny):
    data = DataConfig(train_split="trian")
    methods, notes = comparison.make_methods(tiny, data)
    assert list(methods) == ["model", "bicubic 4x"]
    assert notes[0].startswith("PCA is left out: ")
    assert "'trian'" in notes[0]


def test_without_baselines_there_is_the_model_alone(tiny):
    methods, notes = comparison.make_methods(tiny, DataConfig(), baselines=False)
    assert (list(methods), notes) == (["model"], [])


def test_images_that_do_not_fit_the_model_are_refused(tiny):
    with pytest.raises(PreflightError, match="30x32 is not divisible by the factor 4"):
        comparison.make_methods(tiny, DataConfig(image_size=(30, 32)))


@pytest.mark.parametrize(
    ("asked", "size", "images", "devices", "expected"),
    [
        (0, (32, 32), 10_000, 1, 128),
        (0, (32, 32), 10_000, 8, 1024),
        (0, (256, 256), 10_000, 1, 2),
        (0, (1024, 1024), 10_000, 2, 2),
        (0, (32, 32), 10, 4, 12),
        (64, (32, 32), 10, 4, 64),
    ],
)
def test_batch_size_suits_the_devices(asked, size, images, devices, expected):
    assert comparison.batch_size(asked, size, images, devices) == expected


def test_a_batch_that_the_devices_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="batch size 30 must be a multiple of the 8"):
        comparison.batch_size(30, (32, 32), 100, 8)
