import jax.numpy as jnp
import numpy as np
import pytest

from deepprism_jax.ops import to_float, to_uint8

ALL = jnp.arange(256, dtype=jnp.uint8).reshape(1, 256, 1)


def test_pixels_map_onto_minus_one_to_one():
    floats = to_float(ALL)
    assert floats.dtype == jnp.float32
    np.testing.assert_allclose(floats.ravel(), np.linspace(-1, 1, 256), atol=1e-6)


def test_every_pixel_survives_the_way_there_and_back():
    np.testing.assert_array_equal(to_uint8(to_float(ALL)), ALL)
    assert to_uint8(to_float(ALL)).dtype == jnp.uint8


def test_floats_are_clipped_and_rounded_to_the_nearest():
    step = 2 / 255
    floats = jnp.asarray([-7.0, -1.0 + 0.4 * step, -1.0 + 0.6 * step, 1.0, 7.0])
    floats = floats.reshape(5, 1, 1)
    np.testing.assert_array_equal(to_uint8(floats).ravel(), [0, 0, 1, 255, 255])
    np.testing.assert_array_equal(to_uint8(floats.astype(jnp.bfloat16))[-2:], 255)


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.int32])
def test_only_pixels_become_floats(dtype):
    with pytest.raises(TypeError, match=rf"^images are {dtype.dtype}, not uint8: give"):
        to_float(jnp.ones((4, 4, 3), dtype))


@pytest.mark.usefixtures("without_type_checks")
def test_only_floats_become_pixels():
    with pytest.raises(TypeError, match=r"^images are uint8, not floats: give"):
        to_uint8(ALL)
