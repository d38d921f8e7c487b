"""Flax NNX modules: convolutions of every kind, attention, normalisation, blocks."""

from deepprism_jax.layers.attention import Attention as Attention
from deepprism_jax.layers.attention import PrismAttention as PrismAttention
from deepprism_jax.layers.blocks import AttentionBlock as AttentionBlock
from deepprism_jax.layers.blocks import Downsample as Downsample
from deepprism_jax.layers.blocks import ResBlock as ResBlock
from deepprism_jax.layers.blocks import Upsample as Upsample
from deepprism_jax.layers.conv import ConvFactory as ConvFactory
from deepprism_jax.layers.conv import ConvKind as ConvKind
from deepprism_jax.layers.conv import conv_factory as conv_factory
from deepprism_jax.layers.conv import make_conv as make_conv
from deepprism_jax.layers.norm import GroupNorm as GroupNorm
from deepprism_jax.layers.prism import PrismConv as PrismConv
from deepprism_jax.layers.prism import SeparablePrismConv as SeparablePrismConv
