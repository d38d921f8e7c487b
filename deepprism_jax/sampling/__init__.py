"""Drawing images from trained models: what `sample.py` does."""

from deepprism_jax.sampling.program import draw

__all__ = ["draw"]
