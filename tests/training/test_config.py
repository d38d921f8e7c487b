from deepprism_jax.layers.conv import ConvKind
from deepprism_jax.training import config


def test_the_kinds_of_convolution_are_those_of_the_layers():
    assert config.ConvKind == ConvKind
