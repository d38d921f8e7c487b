"""The autoencoder with a codebook, the second kind of latent of the authors' talk."""

from flax import nnx

from deepprism_jax.models.autoencoder import Autoencoder
from deepprism_jax.models.codebook import Codebook, CodebookUpdate, Quantized
from deepprism_jax.typing import Image


class AutoencoderVQ(Autoencoder):
    """VQ autoencoder: as `AutoencoderKL`, with the nearest code at every position.

    Args:
        codebook_size: number of codes.
        codebook_update: `ema`, codes are moving averages; `gradient`, codes are
            parameters.
        **options: of `Autoencoder`.
    """

    def __init__(
        self,
        *,
        codebook_size: int = 1024,
        codebook_update: CodebookUpdate = "ema",
        rngs: nnx.Rngs,
        **options,
    ):
        super().__init__(rngs=rngs, **options)
        self.options = nnx.static(
            {
                **self.options,
                "codebook_size": codebook_size,
                "codebook_update": codebook_update,
            }
        )
        self.codebook = Codebook(
            codebook_size,
            self.options["z_channels"],
            update=codebook_update,
            rngs=rngs,
        )

    def encode(self, x: Image) -> Quantized:
        """Codes of images [..., H, W, C] in [-1, 1]: [..., H/f, W/f, z]."""
        return self.codebook.quantize(self.moments_of(x))

    def reconstruct(self, x: Image) -> Image:
        """Decode the codes of each image: [..., H, W, C], about [-1, 1]."""
        return self.decode(self.encode(x).codes)
