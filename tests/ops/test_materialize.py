import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepprism_jax.ops.materialize import materialize_on_cpu


@pytest.mark.parametrize("shape", [(2, 3), (1, 1, 1, 1), (0, 3), ()])
def test_nothing_changes_nor_do_gradients(shape):
    x = jnp.arange(float(np.prod(shape, dtype=int))).reshape(shape)
    value, gradient = jax.jit(
        jax.value_and_grad(lambda x: jnp.sum(materialize_on_cpu(x * x)))
    )(x)
    assert value == jnp.sum(x * x)
    np.testing.assert_array_equal(gradient, 2 * x)


@pytest.mark.parametrize(("platform", "updates"), [("cpu", 1), ("tpu", 0)])
def test_only_cpus_write_it_down(platform, updates):
    program = jax.jit(materialize_on_cpu).trace(jnp.ones((2, 3)))
    text = program.lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.dynamic_update_slice") == updates
