import jax
import jax.numpy as jnp
import numpy as np

from deepprism_jax.losses import (
    lecam_init,
    lecam_regularizer,
    lecam_update,
    r1_penalty,
)

IMAGES = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
MATRIX = jax.random.normal(jax.random.key(1), (32, 32))


def quadratic(matrix):
    def critic(images):
        flat = images.reshape(len(images), -1)
        return 0.5 * jnp.einsum("bi,ij,bj->b", flat, matrix, flat)[:, None]

    return critic


def test_r1_of_a_quadratic_critic():
    """D = x'Ax/2 has the gradient (A + A')x/2."""
    flat = np.asarray(IMAGES, np.float64).reshape(3, -1)
    symmetric = np.asarray(MATRIX + MATRIX.T, np.float64) / 2
    expected = 0.5 * np.mean(np.sum((flat @ symmetric) ** 2, axis=1))
    np.testing.assert_allclose(
        r1_penalty(quadratic(MATRIX), IMAGES), expected, rtol=1e-5
    )


def test_r1_trains_the_critic():
    """d/dA of |(A + A')x/2|^2/2 averaged over the batch, at a symmetric A."""
    symmetric = (MATRIX + MATRIX.T) / 2
    gradient = jax.grad(lambda a: r1_penalty(quadratic(a), IMAGES))(symmetric)
    flat = np.asarray(IMAGES, np.float64).reshape(3, -1)
    second = flat.T @ flat / 3
    expected = (symmetric @ second + second @ symmetric) / 2
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4)


def test_r1_does_not_depend_on_the_number_of_disjoint_patches():
    def critic(images):  # one logit a pixel: the patches are the pixels
        return 3.0 * images.sum(-1, keepdims=True)

    small = r1_penalty(critic, IMAGES[:, :2, :2])
    np.testing.assert_allclose(small, 0.5 * 9.0 * 2, rtol=1e-6)
    np.testing.assert_allclose(r1_penalty(critic, IMAGES), small, rtol=1e-6)


REAL = jnp.array([[0.5], [-1.0]])
FAKE = jnp.array([[1.0], [-2.0]])


def test_lecam_by_hand():
    averages = lecam_update(lecam_init(), REAL, FAKE, decay=0.5)
    np.testing.assert_allclose(averages.real, -0.125)
    np.testing.assert_allclose(averages.fake, -0.25)
    # relu(0.5 + 0.25)^2 / 2 and relu(-0.125 + 2)^2 / 2; the other two are beyond.
    expected = 0.75**2 / 2 + 1.875**2 / 2
    np.testing.assert_allclose(lecam_regularizer(averages, REAL, FAKE), expected)


def test_lecam_averages_converge_to_constant_logits():
    averages = lecam_init()
    for _ in range(60):
        averages = lecam_update(averages, REAL + 3, FAKE - 3, decay=0.8)
    np.testing.assert_allclose(averages.real, 2.75, rtol=1e-5)
    np.testing.assert_allclose(averages.fake, -3.5, rtol=1e-5)


def test_lecam_gradient_reaches_the_logits_and_not_the_averages():
    def through_averages(real, fake):
        averages = lecam_update(lecam_init(), real, fake, decay=0.5)
        return lecam_regularizer(averages, 0.0 * real + REAL, 0.0 * fake + FAKE)

    for gradient in jax.grad(through_averages, argnums=(0, 1))(REAL, FAKE):
        assert not gradient.any()
    averages = lecam_update(lecam_init(), REAL, FAKE)
    to_averages, to_real, to_fake = jax.grad(lecam_regularizer, argnums=(0, 1, 2))(
        averages, REAL, FAKE
    )
    assert not any(leaf.any() for leaf in to_averages)
    assert to_real.any()
    assert to_fake.any()
