"""Arrays in, arrays out: the channel convolution and what surrounds it."""

from deepprism_jax.ops.geometry import ChannelPadding as ChannelPadding
from deepprism_jax.ops.pixels import check_range as check_range
from deepprism_jax.ops.pixels import to_float as to_float
from deepprism_jax.ops.pixels import to_uint8 as to_uint8
from deepprism_jax.ops.prism_conv import prism_conv as prism_conv
