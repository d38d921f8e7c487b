"""Programs in StableHLO: what they compute, for what they are, what they refuse."""

import re
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export

from deepprism_jax.export.programs import programs_of
from deepprism_jax.export.stablehlo import lowered, read_stablehlo, write_stablehlo
from deepprism_jax.models import AutoencoderKL, AutoencoderVQ
from deepprism_jax.models.sinddm import SinDDM
from deepprism_jax.models.unet import UNet

# A size that is any has no place in the annotations of shapes.
pytestmark = pytest.mark.usefixtures("without_type_checks")

SMALL = {"width": 8, "norm_groups": 2, "downsamples": 1, "blocks": 0}


def moved(model):
    """The model with other biases: initial ones are zero, and would hide mistakes."""
    state = nnx.state(model, nnx.Param)
    values, tree = jax.tree.flatten(state)
    keys = jax.random.split(jax.random.key(1), len(values))
    values = [
        x + 0.1 * jax.random.normal(k, x.shape)
        for x, k in zip(values, keys, strict=True)
    ]
    nnx.update(model, jax.tree.unflatten(tree, values))
    return model


def uniform(*shape):
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.slow
def test_one_file_is_read_by_three_lines_and_gives_what_the_model_gives(tmp_path):
    model = moved(AutoencoderKL(**SMALL, fields=2, rngs=nnx.Rngs(0)))
    write_stablehlo(model, tmp_path / "model.zip", platforms=("cpu",))

    file = zipfile.ZipFile(tmp_path / "model.zip")
    encode = export.deserialize(bytearray(file.read("encode"))).call
    decode = export.deserialize(bytearray(file.read("decode"))).call

    for shape in ((2, 8, 12, 3), (1, 40, 36, 3)):  # the second has over 256 tokens
        images = uniform(*shape)
        codes = model.encode(images).mode()
        np.testing.assert_allclose(encode(images), codes, rtol=1e-5, atol=1e-5)
        wanted = model.decode(codes)
        np.testing.assert_allclose(decode(codes), wanted, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"divis|remainder"):
        encode(uniform(1, 9, 8, 3))


def test_programs_are_for_every_platform_and_call_no_kernel_of_ours():
    model = AutoencoderKL(**SMALL, rngs=nnx.Rngs(0))
    program = lowered(programs_of(model)["decode"], ("cpu", "cuda", "tpu"))
    assert program.platforms == ("cpu", "cuda", "tpu")
    # What checks that sizes can be divided is JAX's, and is gone before it runs.
    called = set(re.findall(r"custom_call @(\w+)", program.mlir_module()))
    assert called <= {"shape_assertion"}
    assert [str(d) for d in program.in_avals[0].shape] == ["b", "h", "w", "3"]
    assert [str(d) for d in program.out_avals[0].shape] == ["b", "2*h", "2*w", "3"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (lambda r: SinDDM(width=4, rngs=r), (2, 6, 5, 3)),
        (
            lambda r: UNet(
                width=8,
                norm_groups=2,
                multipliers=(1, 1),
                attention=(2,),
                blocks=1,
                classes=3,
                rngs=r,
            ),
            (2, 4, 6, 3),
        ),
    ],
    ids=["SinDDM", "UNet"],
)
def test_denoisers_are_exported_too(tmp_path, model, shape):
    model = moved(model(nnx.Rngs(0)))
    path = tmp_path / "model.zip"
    write_stablehlo(model, path, platforms=("cpu",))
    operands = uniform(*shape), jnp.array([3, 40]), jnp.array([0, 1])
    predicted = read_stablehlo(path)["predict"](*operands)
    np.testing.assert_allclose(predicted, model(*operands), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_codes_of_a_codebook_are_its_vectors(tmp_path):
    model = AutoencoderVQ(**SMALL, codebook_size=16, rngs=nnx.Rngs(0))
    path = tmp_path / "model.zip"
    write_stablehlo(model, path, platforms=("cpu",))
    codes = read_stablehlo(path)["encode"](uniform(1, 8, 8, 3))
    np.testing.assert_array_equal(codes, model.encode(uniform(1, 8, 8, 3)).codes)


def test_what_cannot_be_exported_or_read_is_said(tmp_path):
    with pytest.raises(ValueError, match="Linear is not exported: give one of Auto"):
        write_stablehlo(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), tmp_path / "model.zip")
    (tmp_path / "other.zip").write_text("no archive")
    with pytest.raises(
        ValueError, match=r"other\.zip is no export .*deepprism_jax.weights export"
    ):
        read_stablehlo(tmp_path / "other.zip")
