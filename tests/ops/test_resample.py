import jax.numpy as jnp
import numpy as np
import pytest

from deepprism_jax.ops.resample import upsample_nearest


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_nearest_repeats_every_position(batch, factor):
    x = np.random.default_rng(0).normal(size=(*batch, 3, 2, 5)).astype(np.float32)
    expected = x.repeat(factor, axis=-3).repeat(factor, axis=-2)
    np.testing.assert_array_equal(upsample_nearest(jnp.asarray(x), factor), expected)
