"""Models as files: those in the package, exports, and networks of others."""

from deepprism_jax.weights.included import list_pretrained as list_pretrained
