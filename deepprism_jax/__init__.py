"""DeepPrism channel convolution for lightweight generative models, in JAX and Flax.

The paper: Fu and Cohen, "DeepPrism: Channel Convolution for Lightweight Generative
Models", VSIP 2023. `docs/paper.md` maps its equations to this package.
"""

__version__ = "0.1.0"
