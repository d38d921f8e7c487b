"""Early maps: SIFID by them against SinGAN's own program, golden/make_sifid.py."""

import json
from pathlib import Path

import inception_weights
import jax
import numpy as np
import pytest

from deepprism_jax.metrics.sifid import patches, sifid
from deepprism_jax.models.early_maps import EARLY_MAPS
from deepprism_jax.models.efficientnet import EFFICIENTNET_LITE0
from deepprism_jax.models.feature_networks import NETWORKS
from deepprism_jax.models.inception import INCEPTION
from deepprism_jax.weights.inception import place

GOLDEN = json.loads((Path(__file__).parent / "golden" / "sifid.json").read_text())


def test_sifid_equals_the_program_of_singan():
    shapes = {k: v for k, v in INCEPTION.shapes().items() if k.startswith("Conv2d")}
    params = place(shapes, inception_weights.stem(), "generated weights")

    @jax.jit
    def apply(params, images):
        return {name: EARLY_MAPS[name].apply(params, images) for name in GOLDEN}

    for name, maps in apply(params, inception_weights.sifid_images()).items():
        found = sifid(patches(maps[0]), maps[1:])
        np.testing.assert_allclose(found, GOLDEN[name], rtol=2e-6)


@pytest.mark.parametrize("name", EARLY_MAPS)
def test_maps_have_the_channels_they_say_and_see_patches(name):
    layer = EARLY_MAPS[name]
    networks = {
        "inception": INCEPTION,
        "inception_64": INCEPTION,
        "efficientnet_lite0": EFFICIENTNET_LITE0,
        **NETWORKS,
    }
    shapes = networks[name].shapes()
    images = jax.ShapeDtypeStruct((2, 96, 64, 3), np.uint8)
    maps = jax.eval_shape(layer.apply, shapes, images)
    assert (maps.shape[0], maps.shape[-1]) == (2, layer.channels)
    assert maps.dtype == np.float32
    gray = jax.ShapeDtypeStruct((2, 96, 64, 1), np.uint8)
    assert jax.eval_shape(layer.apply, shapes, gray).shape == maps.shape
    small = jax.ShapeDtypeStruct((1, 32, 31, 3), np.uint8)
    with pytest.raises(ValueError, match="at least 32x32, and these are 32x31"):
        jax.eval_shape(layer.apply, shapes, small)
