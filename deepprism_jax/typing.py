"""Names for the array shapes that the package's signatures share.

Shapes are checked in the tests only (pytest's jaxtyping hook). Where jaxtyping is not
installed the names are plain `jax.Array`, so users need neither it nor a type checker.
"""

from typing import TYPE_CHECKING, Any

import jax

if TYPE_CHECKING:
    Float = Int = UInt8 = Any
    Image = ImageU8 = Latent = Scalar = jax.Array
else:
    try:
        from jaxtyping import Array, Float, Int, UInt8
    except ImportError:

        class _Unchecked:
            def __class_getitem__(cls, item):
                return Any

        Array, Float, Int, UInt8 = jax.Array, _Unchecked, _Unchecked, _Unchecked

    Image = Float[Array, "*b h w c"]  # [-1, 1]
    ImageU8 = UInt8[Array, "*b h w c"]  # 0 .. 255
    Latent = Float[Array, "*b lh lw z"]
    Scalar = Float[Array, ""]
