import jax
import jax.numpy as jnp
import numpy as np

from deepprism_jax.training.sharding import make_mesh, place_batch, replicated, spread


def test_every_device_runs_its_own_part_of_the_batch():
    mesh = make_mesh()

    def local(values, batch):
        return batch * values["factor"] + len(batch)

    values = jax.device_put({"factor": jnp.float32(2)}, replicated(mesh))
    batch = place_batch(mesh, np.arange(8, dtype=np.float32))
    compiled = jax.jit(spread(mesh, local)).lower(values, batch).compile()
    np.testing.assert_array_equal(compiled(values, batch), 2 * np.arange(8) + 2)
    assert "all-gather" not in compiled.as_text()
