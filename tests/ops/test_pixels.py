import jax.numpy as jnp
import numpy as np
import pytest

from deepprism_jax.ops import check_range, to_float, to_uint8

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


def test_floats_of_another_range_are_refused():
    for low, high in ((-1.0, 1.0), (-0.2, 0.0), (-1.0005, 0.9), (0.0, 0.0)):
        check_range(jnp.linspace(low, high, 48).reshape(1, 4, 4, 3))
    for low, high, message in (
        (0.0, 1.0, r"lie in \[0, 1\], which looks like \[0, 1\] where .* 2 \* x - 1$"),
        (0.3, 0.9, "which looks like"),
        (0.0, 255.0, r"lie in \[0, 255\], beyond \[-1, 1\]: .* ops\.to_float"),
        (-1.1, 0.5, "beyond"),
        (-0.5, np.nan, "beyond"),
    ):
        with pytest.raises(ValueError, match=message):
            check_range(jnp.linspace(low, high, 48).reshape(1, 4, 4, 3))
