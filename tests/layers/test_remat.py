import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deepprism_jax.layers import AttentionBlock, ResBlock, conv_factory, remat
from deepprism_jax.layers.blocks import run
from deepprism_jax.layers.functional import Functional, values_of

CHANNELS = 8


@pytest.fixture(scope="module")
def body():
    class Body(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            shared = {"conv": conv_factory("channel"), "norm_groups": 4, "rngs": rngs}
            self.blocks = nnx.List(
                [
                    ResBlock(CHANNELS, **shared),
                    AttentionBlock(CHANNELS, heads=2, **shared),
                ]
            )

        def __call__(self, x):
            return run(self.blocks, x)

    return Body()


def pull_of(body, policy):
    """Loss and gradients of one policy, as a function of (values, x)."""
    functional = Functional(body)

    def loss(values, x):
        with remat.rematerializing(policy):
            return jnp.sum(jnp.sin(functional.bind(values)(x)))

    return jax.value_and_grad(loss, (0, 1))


def test_numbers_do_not_depend_on_the_policy(body):
    values = values_of(body)
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, CHANNELS))
    kept = jax.jit(pull_of(body, "none"))(values, x)
    again = jax.jit(pull_of(body, "blocks"))(values, x)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), kept, again
    )


def residuals(body, policy):
    """Sizes of the feature maps kept between the passes."""
    functional = Functional(body)
    values = values_of(body)

    def forward(x):
        with remat.rematerializing(policy):
            _, pull = jax.vjp(lambda x: functional.bind(values)(x), x)
        return jax.tree.leaves(pull)

    x = jax.ShapeDtypeStruct((2, 4, 4, CHANNELS), jnp.float32)
    return [leaf.size for leaf in jax.eval_shape(forward, x) if leaf.ndim >= 3]


def test_blocks_keep_only_what_goes_between_them(body):
    size = 2 * 4 * 4 * CHANNELS
    kept = residuals(body, "blocks")
    assert kept.count(size) == 2
    assert max(kept) == size
    assert sum(residuals(body, "none")) > 5 * sum(kept)


def test_a_policy_ends_with_its_context():
    with remat.rematerializing("blocks"):
        assert remat.policy() == "blocks"
    assert remat.policy() == "none"


def test_an_unknown_policy_is_refused(without_type_checks):
    del without_type_checks
    message = "remat='all' is unknown; choose one of ['none', 'blocks']"
    with (
        pytest.raises(ValueError, match=f"^{re.escape(message)}$"),
        remat.rematerializing("all"),  # pyright: ignore[reportArgumentType]
    ):
        pass
