"""What a network costs: parameters, exactly and before it is made."""

from deepprism_jax.analysis.parameters import count_layers as count_layers
from deepprism_jax.analysis.parameters import parameter_count as parameter_count
from deepprism_jax.analysis.parameters import parameter_table as parameter_table
