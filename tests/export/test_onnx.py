"""Networks in ONNX: what they compute in onnxruntime."""

import zipfile

import numpy as np
import pytest
from flax import nnx

from deepprism_jax.export.onnx_file import write_onnx
from deepprism_jax.models import AutoencoderKL

pytestmark = pytest.mark.usefixtures("without_type_checks")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the converter
def test_networks_give_what_the_model_gives_for_any_number_of_images(tmp_path):
    pytest.importorskip("jax2onnx", reason="needs the extra onnx")
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    model = AutoencoderKL(
        width=8, norm_groups=2, fields=2, downsamples=1, blocks=0, rngs=nnx.Rngs(0)
    )
    path = tmp_path / "model.zip"
    assert write_onnx(model, path, side=8) == ("encode.onnx", "decode.onnx")
    file = zipfile.ZipFile(path)

    def run(name, x):
        session = runtime.InferenceSession(
            file.read(f"{name}.onnx"), providers=["CPUExecutionProvider"]
        )
        (given,) = session.get_inputs()
        return session.run(None, {given.name: x})[0]

    for count in (1, 3):
        rng = np.random.default_rng(count)
        images = rng.uniform(-1, 1, (count, 8, 8, 3)).astype(np.float32)
        codes = np.asarray(model.encode(images).mode())
        np.testing.assert_allclose(run("encode", images), codes, atol=1e-4)
        np.testing.assert_allclose(run("decode", codes), model.decode(codes), atol=1e-4)
    assert len(file.read("encode.onnx")) < 300_000
