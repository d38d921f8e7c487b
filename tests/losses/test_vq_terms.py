import jax
import jax.numpy as jnp
import numpy as np

from deepprism_jax.losses import codebook_loss, commitment_loss, straight_through

Z = jax.random.normal(jax.random.key(0), (2, 3, 3, 4))
CODES = jax.random.normal(jax.random.key(1), (2, 3, 3, 4)) * 3


def test_both_terms_are_the_mean_square_distance():
    expected = np.mean((np.asarray(Z) - np.asarray(CODES)) ** 2)
    np.testing.assert_allclose(codebook_loss(Z, CODES), expected, rtol=1e-6)
    np.testing.assert_allclose(commitment_loss(Z, CODES), expected, rtol=1e-6)


def test_codebook_term_moves_only_the_codes():
    to_z, to_codes = jax.grad(codebook_loss, argnums=(0, 1))(Z, CODES)
    assert not to_z.any()
    np.testing.assert_allclose(to_codes, 2 * (CODES - Z) / Z.size, rtol=1e-6)


def test_commitment_term_moves_only_the_encoder():
    to_z, to_codes = jax.grad(commitment_loss, argnums=(0, 1))(Z, CODES)
    np.testing.assert_allclose(to_z, 2 * (Z - CODES) / Z.size, rtol=1e-6)
    assert not to_codes.any()


def test_straight_through_is_the_codes_forward_and_the_identity_backward():
    np.testing.assert_array_equal(jax.jit(straight_through)(Z, CODES), CODES)
    weight = jax.random.normal(jax.random.key(2), Z.shape)

    def loss(z, codes):
        return jnp.sum(weight * straight_through(z, codes))

    to_z, to_codes = jax.grad(loss, argnums=(0, 1))(Z, CODES)
    np.testing.assert_array_equal(to_z, weight)
    assert not to_codes.any()
