import re

import jax.numpy as jnp
import pytest

from deepprism_jax.ops import prism_conv


@pytest.mark.parametrize(
    ("x", "kernel", "options", "message"),
    [
        (
            *((4, 4, 6), (3, 3, 3, 1, 1), {"method": "fastest"}),
            "method='fastest' is unknown; choose one of "
            "['auto', 'reference', 'banded', 'shift_and_add', 'shifted', 'stacked', "
            "'native']",
        ),
        (
            *((4, 4, 6), (3, 3, 3, 1, 1), {"channel_padding": "reflect"}),
            "channel_padding='reflect' is unknown; choose one of "
            "['zero', 'replicate', 'circular']",
        ),
        (
            *((4, 4, 6), (3, 3, 3), {}),
            "kernel has shape (3, 3, 3); it must have five axes "
            "[K_H, K_W, K_C, F_in, F_out]",
        ),
        (
            *((4, 6), (3, 3, 3, 1, 1), {}),
            "x has shape (4, 6); it must be [..., H, W, C]",
        ),
        (
            *((0, 4, 4, 6), (3, 3, 3, 1, 1), {}),
            "x has shape (0, 4, 4, 6); no axis may be empty",
        ),
        (
            *((4, 4, 6), (3, 2, 3, 1, 1), {}),
            "kernel sizes (3, 2, 3) must be odd, so that the output stays centred on "
            "the input",
        ),
        (
            *((4, 4, 6), (3, 3, 3, 4, 4), {}),
            "C=6 channels are not a multiple of F_in=4 fields; choose fields that "
            "divide 6",
        ),
        (
            *((4, 4, 6), (3, 3, 3, 1, 1), {"strides": 0}),
            "strides=0 must be one or two positive integers",
        ),
        (
            *((4, 4, 6), (3, 3, 3, 1, 1), {"strides": (1, 2, 1)}),
            "strides=(1, 2, 1) must be one or two positive integers",
        ),
    ],
)
# The annotations of the signature would catch some of them first in the tests.
@pytest.mark.usefixtures("without_type_checks")
def test_error_names_the_value_and_the_remedy(x, kernel, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        prism_conv(jnp.ones(x), jnp.ones(kernel), **options)


@pytest.mark.usefixtures("without_type_checks")
def test_pixels_must_be_floats_first():
    with pytest.raises(ValueError, match="uint8 and float32; both must be floating: "):
        prism_conv(jnp.ones((4, 4, 6), jnp.uint8), jnp.ones((3, 3, 3, 1, 1)))


@pytest.mark.usefixtures("without_type_checks")
def test_the_bias_is_one_number_a_field():
    message = r"bias has shape \(2,\); it must be \(1,\), one number a field"
    with pytest.raises(ValueError, match=message):
        prism_conv(jnp.ones((4, 4, 6)), jnp.ones((3, 3, 3, 1, 1)), jnp.ones(2))
