"""SOAP against the algorithm in NumPy, Adam, and what it promises."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from deepprism_jax.training.config import OptimizerConfig
from deepprism_jax.training.optimizer import make_optimizer, make_schedule
from deepprism_jax.training.soap import as_matrix, orthonormal, scale_by_soap

B1, B2 = 0.9, 0.95


def followed(product, q):
    """A step of the power method, and the squares of cosines to the axes before."""
    order = np.argsort(-np.diag(q.T @ product @ q))
    new = np.linalg.qr(product @ q[:, order])[0]
    return new, (new.T @ q) ** 2


def by_definition(gradients, every):
    """The moves of a matrix as `scale_by_soap` tells them, in double precision."""
    rows, columns = gradients[0].shape
    mean = square = np.zeros((rows, columns))
    left, right = np.zeros((rows, rows)), np.zeros((columns, columns))
    q_left, q_right = np.eye(rows), np.eye(columns)
    for count, g in enumerate(gradients, 1):
        left = B2 * left + (1 - B2) * g @ g.T
        right = B2 * right + (1 - B2) * g.T @ g
        if count % every == 0:
            q_left, share = followed(left, q_left)
            square = share @ square
            q_right, share = followed(right, q_right)
            square = square @ share.T
        mean = B1 * mean + (1 - B1) * g
        turned = q_left.T @ g @ q_right
        square = B2 * square + (1 - B2) * turned**2
        bias1, bias2 = 1 - B1**count, 1 - B2**count
        turned_mean = q_left.T @ mean @ q_right
        move = turned_mean / bias1 / (np.sqrt(square / bias2) + 1e-8)
        yield q_left @ move @ q_right.T


def test_moves_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    gradients = [rng.normal(size=(6, 4)) for _ in range(12)]
    optimizer = scale_by_soap(B1, B2, every=3)
    params = {"a": jnp.zeros((2, 3, 4)), "b": jnp.zeros(3)}
    state: Any = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for g, expected in zip(gradients, by_definition(gradients, 3), strict=True):
        grads = {"a": jnp.float32(g).reshape(2, 3, 4), "b": jnp.ones(3)}
        moves, state = update(grads, state)
        np.testing.assert_allclose(moves["a"].reshape(6, 4), expected, atol=1e-4)
        np.testing.assert_allclose(moves["b"], 1, rtol=1e-5)


@pytest.mark.parametrize("size", [1.0, 1e-6])
def test_no_axis_moves_far_before_it_has_seen_gradients(size):
    rng = np.random.default_rng(0)
    optimizer = scale_by_soap(0.9, 0.99)
    params = [jnp.zeros((3, 3, 3, 1, 1))] * 20
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    farthest = 0.0
    for _ in range(40):
        grads = [jnp.float32(size * rng.normal(size=x.shape)) for x in params]
        moves, state = update(grads, state)
        farthest = max(farthest, *(float(jnp.abs(x).max()) for x in moves))
    assert farthest < 5


def test_without_a_side_to_turn_it_is_adam():
    rng = np.random.default_rng(0)
    params = {"a": jnp.zeros((3, 3, 2)), "b": jnp.zeros(5), "c": jnp.zeros((3, 3, 2))}
    soap, adam = scale_by_soap(B1, B2, largest=1), optax.scale_by_adam(B1, B2)
    states = soap.init(params), adam.init(params)
    update, expect = jax.jit(soap.update), jax.jit(adam.update)
    for _ in range(4):
        grads = {k: jnp.float32(rng.normal(size=v.shape)) for k, v in params.items()}
        moves, state = update(grads, states[0])
        expected, adam_state = expect(grads, states[1])
        states = state, adam_state
        for name in params:
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


def test_a_kernel_on_smooth_maps_is_learned_where_adam_is_slow():
    # Neighbours are alike, so the least squares of a batch are steep along few axes.
    place = np.arange(3)
    near = np.exp(-np.abs(place[:, None] - place) / 8)
    covariance = np.kron(np.kron(near, near), near)
    root = jnp.float32(np.linalg.cholesky(covariance))
    truth = jnp.float32(np.random.default_rng(0).normal(size=27))
    start = jnp.zeros((3, 3, 3, 1, 1))
    rate = optax.scale_by_schedule(optax.cosine_decay_schedule(-0.1, 300))

    def error(scale):
        optimizer = optax.chain(scale, rate)

        def step(carry, key):
            kernel, state = carry
            maps = jax.random.normal(key, (8, 27)) @ root.T
            gradient = maps.T @ (maps @ (kernel.ravel() - truth)) / 8
            move, state = optimizer.update(gradient.reshape(kernel.shape), state)
            return (optax.apply_updates(kernel, move), state), None

        keys = jax.random.split(jax.random.key(0), 300)
        begin = start, optimizer.init(start)
        kernel = jax.jit(lambda: jax.lax.scan(step, begin, keys)[0][0])()
        missing = np.asarray(kernel).ravel() - np.asarray(truth)
        return missing @ covariance @ missing

    soap, adam = error(scale_by_soap(B1, B2)), error(optax.scale_by_adam(B1, B2))
    assert soap < adam / 5, (soap, adam)


def test_gradients_of_zero_move_nothing():
    optimizer = scale_by_soap(B1, B2, every=2)
    params = {"a": jnp.ones((3, 3)), "b": jnp.ones((2, 2))}
    state: Any = optimizer.init(params)
    update = jax.jit(optimizer.update)
    grads = {"a": jnp.zeros((3, 3)), "b": jnp.ones((2, 2))}
    for _ in range(4):
        moves, state = update(grads, state)
        np.testing.assert_array_equal(moves["a"], 0)
        assert np.isfinite(moves["b"]).all()


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_large_tensors_are_moved_by_adam_and_all_decay(decay):
    params = {"large": jnp.ones((256, 256)), "small": jnp.ones((2, 2))}
    grads = {"large": jnp.full((256, 256), 0.5), "small": jnp.full((2, 2), 0.5)}
    config = OptimizerConfig(
        name="soap", learning_rate=0.1, clip_norm=0.0, weight_decay=decay
    )
    schedule = make_schedule(config, batch_size=1, steps=10)
    optimizer = make_optimizer(config, schedule, params)
    state: Any = optimizer.init(params)
    adam, soap = state[0].inner_states["adam"], state[0].inner_states["soap"]
    assert {x.shape for x in jax.tree.leaves(adam)} == {(), (256, 256)}
    assert {x.shape for x in jax.tree.leaves(soap)} == {(), (1, 2, 2)}
    moves, _ = jax.jit(optimizer.update)(grads, state, params)
    for move in moves.values():
        np.testing.assert_allclose(move, -0.1 * (1 + decay), rtol=1e-4)


@pytest.mark.parametrize("size", [1e-15, 1e-8, 1.0, 1e12])
@pytest.mark.parametrize("rank", [1, 3, 6])
def test_axes_are_those_of_a_qr_decomposition(rank, size):
    rng = np.random.default_rng(0)
    matrices = rng.normal(size=(3, 6, rank)) @ rng.normal(size=(3, rank, 6))
    q = np.asarray(orthonormal(jnp.float32(size * matrices)))
    np.testing.assert_allclose(q.mT @ q, np.tile(np.eye(6), (3, 1, 1)), atol=1e-6)
    cosines = np.abs(np.sum(q * np.linalg.qr(matrices)[0], axis=1))
    np.testing.assert_allclose(cosines[:, :rank], 1, atol=1e-4)


def test_a_state_is_restored_as_it_was(tmp_path):
    params = {"large": jnp.ones((256, 256)), "small": jnp.ones((3, 3, 3, 1, 1))}
    config = OptimizerConfig(name="soap")
    schedule = make_schedule(config, batch_size=1, steps=10)
    optimizer = make_optimizer(config, schedule, params)
    grads = jax.tree.map(lambda x: x * 0.25, params)
    _, state = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", optimizer.init(params))
    jax.tree.map(np.testing.assert_array_equal, restored, state)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="products are custom calls")
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
