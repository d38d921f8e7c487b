import re

import jax.numpy as jnp
import numpy as np
import pytest

from deepprism_jax.ops.geometry import geometry_of

pytestmark = pytest.mark.usefixtures("without_type_checks")


X, KERNEL = jnp.ones((4, 6, 8)), jnp.ones((3, 3, 3, 2, 1))


@pytest.mark.parametrize(
    "strides", [2, np.int64(2), (2, 2), [2, 2], (np.int32(2), 2)], ids=repr
)
def test_integers_of_every_kind_are_strides(strides):
    geometry = geometry_of(X, KERNEL, "zero", strides)
    assert geometry.strides == (2, 2)
    assert {type(stride) for stride in geometry.strides} == {int}
    assert geometry.out_size == (2, 3)


@pytest.mark.parametrize("strides", [0, -1, 1.5, "2", None, (1,), (1, 0), (1, 2.0)])
def test_other_strides_are_refused(strides):
    message = f"strides={strides} must be one or two positive integers"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        geometry_of(X, KERNEL, "zero", strides)
