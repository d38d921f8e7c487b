"""Spatial resampling of feature maps."""

from einops import repeat
from jaxtyping import Array, Float


def upsample_nearest(
    x: Float[Array, "*b h w c"], factor: int = 2
) -> Float[Array, "*b h_out w_out c"]:
    """Repeat every position `factor` times along height and width."""
    return repeat(x, "... h w c -> ... (h i) (w j) c", i=factor, j=factor)
