"""Names that options choose among; they can be read without importing JAX."""

from typing import Literal

ConvKind = Literal[
    "dense",
    "group",
    "depthwise_separable",
    "low_rank",
    "channel",
    "prism_separable",
    "deepprism",
]
"""Kinds of convolution that `layers.make_conv` makes."""

ChannelPadding = Literal["zero", "replicate", "circular"]
"""Topologies of the channel axis (Table 1): an interval, a line, a circle."""
