"""SOAP against the algorithm in NumPy, Adam, and what it promises."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deepprism_jax.training.config import OptimizerConfig
from deepprism_jax.training.optimizer import make_optimizer, make_schedule
from deepprism_jax.training.soap import as_matrix, orthonormal, scale_by_soap

B1, B2 = 0.9, 0.95


def run(optimizer, start, gradient, steps):
    """Return the parameters after some steps, all in one program."""

    def step(carry, _):
        params, state = carry
        moves, state = optimizer.update(gradient(params), state, params)
        return (optax.apply_updates(params, moves), state), None

    return jax.jit(
        lambda: jax.lax.scan(step, (start, optimizer.init(start)), None, steps)[0][0]
    )()


def by_definition(gradients, every):
    """The moves of a matrix by algorithm 3 of the paper, in double precision.

    Its axes begin as eigenvectors, and ours as those of the weights.
    """
    rows, columns = gradients[0].shape
    mean = square = np.zeros((rows, columns))
    left, right = np.zeros((rows, rows)), np.zeros((columns, columns))
    q_left, q_right = np.eye(rows), np.eye(columns)
    for count, g in enumerate(gradients, 1):
        left = B2 * left + (1 - B2) * g @ g.T
        right = B2 * right + (1 - B2) * g.T @ g
        if count <= every or count % every == 0:
            order = np.argsort(-np.diag(q_left.T @ left @ q_left))
            q_left, square = np.linalg.qr(left @ q_left[:, order])[0], square[order]
            order = np.argsort(-np.diag(q_right.T @ right @ q_right))
            q_right = np.linalg.qr(right @ q_right[:, order])[0]
            square = square[:, order]
        mean = B1 * mean + (1 - B1) * g
        turned = q_left.T @ g @ q_right
        square = B2 * square + (1 - B2) * turned**2
        bias1, bias2 = 1 - B1**count, 1 - B2**count
        turned_mean = q_left.T @ mean @ q_right
        move = turned_mean / bias1 / (np.sqrt(square / bias2) + 1e-8)
        yield q_left @ move @ q_right.T if count > 1 else np.zeros_like(move)


def test_moves_are_those_of_the_algorithm():
    rng = np.random.default_rng(0)
    # Full rank from the first step on, so that its eigenvectors are determined.
    gradients = [rng.normal(size=(4, 4)) for _ in range(12)]
    optimizer = scale_by_soap(B1, B2, every=5)
    params = {"a": jnp.zeros((2, 2, 4)), "b": jnp.zeros(3)}
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for g, expected in zip(gradients, by_definition(gradients, 5), strict=True):
        grads = {"a": jnp.float32(g).reshape(2, 2, 4), "b": jnp.ones(3)}
        moves, state = update(grads, state)
        np.testing.assert_allclose(moves["a"].reshape(4, 4), expected, atol=1e-4)
        np.testing.assert_allclose(moves["b"], float(expected.any()), rtol=1e-5)


def test_without_a_side_to_turn_it_is_adam():
    rng = np.random.default_rng(0)
    params = {"a": jnp.zeros((3, 3, 2)), "b": jnp.zeros(5), "c": jnp.zeros((3, 3, 2))}
    soap, adam = scale_by_soap(B1, B2, largest=1), optax.scale_by_adam(B1, B2)
    states = soap.init(params), adam.init(params)
    update, expect = jax.jit(soap.update), jax.jit(adam.update)
    for step in range(4):
        grads = {k: jnp.float32(rng.normal(size=v.shape)) for k, v in params.items()}
        moves, state = update(grads, states[0])
        expected, adam_state = expect(grads, states[1])
        states = state, adam_state
        for name in params if step else ():
            np.testing.assert_allclose(moves[name], expected[name], rtol=1e-4)


def test_axes_become_the_eigenvectors_of_the_products():
    rng = np.random.default_rng(0)
    optimizer = scale_by_soap(B1, 0.99)
    shape = np.linalg.cholesky(np.cov(rng.normal(size=(5, 7))))
    state: Any = optimizer.init(jnp.zeros((5, 3)))
    update = jax.jit(optimizer.update)
    for _ in range(300):
        _, state = update(jnp.float32(shape @ rng.normal(size=(5, 3))), state)
    (product,), (axes,) = state.products["rows"]["5x3"], state.axes["rows"]["5x3"]
    along = np.asarray(axes.mT @ product @ axes)
    assert list(np.diag(along)) == sorted(np.diag(along), reverse=True)
    between = along - np.diag(np.diag(along))
    assert np.abs(between).max() < 0.05 * along.max(), along


def test_a_valley_along_no_axis_is_crossed_where_adam_is_slow():
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(27, 27)))
    hessian = jnp.float32(turn @ np.diag(np.logspace(0, -4, 27)) @ turn.T)
    start = jnp.float32(turn @ np.ones(27)).reshape(3, 3, 3, 1, 1)

    def gradient(kernel):
        return (hessian @ kernel.ravel()).reshape(kernel.shape)

    def loss(kernel):
        return float(kernel.ravel() @ hessian @ kernel.ravel())

    rate = optax.cosine_decay_schedule(0.1, 300)

    def after(scale):
        optimizer = optax.chain(scale, optax.scale_by_learning_rate(rate))
        return loss(run(optimizer, start, gradient, 300))

    soap, adam = after(scale_by_soap(B1, B2)), after(optax.scale_by_adam(B1, B2))
    assert soap < adam / 1000, (soap, adam, loss(start))


def test_gradients_of_zero_move_nothing():
    optimizer = scale_by_soap(B1, B2, every=2)
    params = {"a": jnp.ones((3, 3)), "b": jnp.ones((2, 2))}
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    grads = {"a": jnp.zeros((3, 3)), "b": jnp.ones((2, 2))}
    for _ in range(4):
        moves, state = update(grads, state)
        np.testing.assert_array_equal(moves["a"], 0)
        assert np.isfinite(moves["b"]).all()


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_large_tensors_are_moved_by_adam_and_all_decay(decay):
    params = {"large": jnp.ones((256, 256)), "small": jnp.ones((2, 2))}
    grads = {"large": jnp.full((256, 256), 0.5), "small": jnp.diag(jnp.array([0.5, 0]))}
    config = OptimizerConfig(
        name="soap", learning_rate=0.1, clip_norm=0.0, weight_decay=decay
    )
    schedule = make_schedule(config, batch_size=1, steps=10)
    optimizer = make_optimizer(config, schedule, params)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    _, state = update(grads, state, params)
    moves, _ = update(grads, state, params)
    np.testing.assert_allclose(moves["large"], -0.1 * (1 + decay), rtol=1e-4)
    # One gradient is one axis: all of it moves as far as one number does by Adam.
    plain = moves["small"] + 0.1 * decay
    np.testing.assert_allclose(jnp.linalg.norm(plain), 0.1, rtol=1e-3)


def test_axes_are_those_of_a_qr_decomposition():
    rng = np.random.default_rng(0)
    matrices = rng.normal(size=(3, 6, 6)) * np.logspace(0, -5, 6)
    matrices[2, :, 3:] = 0
    q = np.asarray(orthonormal(jnp.float32(matrices)))
    np.testing.assert_allclose(q.mT @ q, np.tile(np.eye(6), (3, 1, 1)), atol=1e-6)
    expected = np.linalg.qr(matrices)[0]
    full = np.abs(np.sum(q * expected, axis=1))
    np.testing.assert_allclose(full[:2], 1, atol=1e-4)
    np.testing.assert_allclose(full[2, :3], 1, atol=1e-4)


def test_no_library_is_called_that_could_wait_for_itself():
    optimizer = scale_by_soap(B1, B2)
    params = {"a": jnp.zeros((3, 3, 3, 1, 1)), "b": jnp.zeros((3, 3, 3, 4))}
    update = jax.jit(optimizer.update)
    text = update.lower(params, optimizer.init(params)).compile().as_text()
    assert text
    assert "custom-call" not in text


def test_a_tensor_is_what_an_output_is_made_of_by_outputs():
    assert as_matrix((3, 3, 3, 2, 4)) == (54, 4)
    assert as_matrix((64,)) == (1, 64)
    assert as_matrix(()) == (1, 1)
