"""Names for the array shapes that the package's signatures share.

`*b` is any number of leading batch axes. Shapes are checked in the tests only, by
pytest's jaxtyping hook; at run time the annotations cost nothing.
"""

from jaxtyping import Array, Float, UInt8

Image = Float[Array, "*b h w c"]
"""Images in [-1, 1], channel last."""

ImageU8 = UInt8[Array, "*b h w c"]
"""Images as 8-bit pixels 0..255, channel last."""

Latent = Float[Array, "*b lh lw z"]
"""Codes: `h / factor` x `w / factor` positions of `z` numbers."""

Scalar = Float[Array, ""]
