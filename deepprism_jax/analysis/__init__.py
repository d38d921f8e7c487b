"""What a network costs: parameters, operations and bytes, before it is made."""

from deepprism_jax.analysis.costs import cost_table as cost_table
from deepprism_jax.analysis.costs import layer_costs as layer_costs
from deepprism_jax.analysis.parameters import count_layers as count_layers
from deepprism_jax.analysis.parameters import parameter_count as parameter_count
from deepprism_jax.analysis.parameters import parameter_table as parameter_table
