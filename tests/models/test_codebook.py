import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from deepprism_jax.layers.functional import Functional
from deepprism_jax.models.codebook import Codebook, Quantized, update_codebook

SIZE, CHANNELS = 6, 3
KEY = jax.random.key(0)


def draw(seed, *shape):
    values = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(values, jnp.float32)


def codebook_of(codes):
    codebook = nnx.eval_shape(lambda: Codebook(*codes.shape, rngs=nnx.Rngs(0)))
    return Functional(codebook).bind({"codes": codes, "usage": jnp.ones(len(codes))})


def nearest(z, codes):
    """Index of the nearest code by explicit distances, in float64."""
    z, codes = np.asarray(z, np.float64), np.asarray(codes, np.float64)
    return np.square(z[..., None, :] - codes).sum(-1).argmin(-1)


def assigned(z, codes):
    """What `quantize` would give, by NumPy."""
    indices = nearest(z, codes)
    return Quantized(z, codes[indices], jnp.asarray(indices))


update = jax.jit(
    update_codebook, static_argnames=("move", "decay", "dead_below", "axis_name")
)


def test_quantizes_to_the_nearest_code():
    codes, z = draw(0, SIZE, CHANNELS), draw(1, 2, 4, 5, CHANNELS)
    codebook = codebook_of(codes)
    quantized = codebook.quantize(z)
    indices = nearest(z, codes)
    np.testing.assert_array_equal(quantized.indices, indices)
    np.testing.assert_array_equal(quantized.codes, np.asarray(codes)[indices])
    np.testing.assert_array_equal(quantized.continuous, z)
    np.testing.assert_array_equal(codebook.lookup(quantized.indices), quantized.codes)
    assert len(np.unique(indices)) > SIZE // 2


def test_products_of_the_codebook_are_in_full_precision():
    # On a CPU they always are; elsewhere bfloat16 would choose other codes.
    codes, z = draw(0, SIZE, CHANNELS), draw(1, 2, 2, 2, CHANNELS)
    usage = jnp.ones(SIZE)

    def run(codes, z):
        quantized = codebook_of(codes).quantize(z)
        return update_codebook(codes, usage, quantized, KEY, move=True)

    equations = jax.make_jaxpr(run)(codes, z).eqns
    products = [e.params for e in equations if e.primitive.name == "dot_general"]
    assert len(products) == 2
    for params in products:
        assert params["precision"] == (jax.lax.Precision.HIGHEST,) * 2


def test_gradients_pass_straight_through_to_the_encoder():
    codes, z = draw(0, SIZE, CHANNELS), draw(1, 1, 2, 2, CHANNELS)
    g = draw(2, 1, 2, 2, CHANNELS)

    def loss(codes, z):
        quantized = codebook_of(codes).quantize(z)
        return jnp.vdot(quantized.sample(KEY), g)

    to_codes, to_z = jax.jit(jax.grad(loss, argnums=(0, 1)))(codes, z)
    np.testing.assert_array_equal(to_z, g)
    np.testing.assert_array_equal(to_codes, jnp.zeros_like(codes))


def test_moving_averages_are_those_of_the_counts_and_sums():
    """Razavi et al.: N <- g N + (1-g) n, m <- g m + (1-g) sum, e = m / N."""
    decay = 0.8
    codes, usage = draw(0, SIZE, CHANNELS), jnp.ones(SIZE)
    even = 40 / SIZE
    counts = np.full(SIZE, even)
    sums = np.asarray(codes, np.float64) * counts[:, None]
    for step in range(4):
        quantized = assigned(draw(step + 1, 2, 4, 5, CHANNELS), codes)
        vectors = np.asarray(quantized.continuous, np.float64).reshape(-1, CHANNELS)
        indices = np.asarray(quantized.indices).reshape(-1)
        for code in range(SIZE):
            members = vectors[indices == code]
            counts[code] = decay * counts[code] + (1 - decay) * len(members)
            sums[code] = decay * sums[code] + (1 - decay) * members.sum(0)
        codes, usage = update(
            codes, usage, quantized, KEY, move=True, decay=decay, dead_below=0.0
        )
        np.testing.assert_allclose(codes, sums / counts[:, None], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(usage * even, counts, rtol=1e-5)


def test_dead_codes_restart_at_vectors_of_the_batch():
    codes = draw(0, SIZE, CHANNELS).at[:2].set(100.0)
    usage = jnp.ones(SIZE).at[0].set(0.03).at[1].set(0.04)
    quantized = assigned(draw(1, 2, 4, 5, CHANNELS), codes)
    after, fresh = update(codes, usage, quantized, KEY, move=False)
    # 0.99 * 0.03 is below the default of 0.03, 0.99 * 0.04 is not.
    vectors = np.asarray(quantized.continuous).reshape(-1, CHANNELS)
    assert (vectors == np.asarray(after)[0]).all(-1).any()
    assert fresh[0] == 1.0
    np.testing.assert_array_equal(after[1:], codes[1:])
    assert fresh[1] == pytest.approx(0.99 * 0.04)


def test_dead_codes_restart_at_different_vectors():
    codes = jnp.full((SIZE, CHANNELS), 100.0)
    quantized = assigned(draw(1, 2, 4, 5, CHANNELS), codes)
    usage = jnp.zeros(SIZE)
    after, _ = update(codes, usage, quantized, KEY, move=True, dead_below=1e9)
    other, _ = update(
        codes, usage, quantized, jax.random.key(1), move=True, dead_below=1e9
    )
    assert len(np.unique(after, axis=0)) > SIZE // 2
    assert not np.array_equal(after, other)


def test_codes_of_a_gradient_are_left_to_it():
    codes, usage = draw(0, SIZE, CHANNELS), jnp.ones(SIZE)
    quantized = assigned(draw(1, 2, 4, 5, CHANNELS), codes)
    after, fresh = update(codes, usage, quantized, KEY, move=False)
    np.testing.assert_array_equal(after, codes)
    counts = np.bincount(np.asarray(quantized.indices).reshape(-1), minlength=SIZE)
    np.testing.assert_allclose(fresh, 0.99 + 0.01 * counts / (40 / SIZE), rtol=1e-6)


def spread(dead_below):
    """The update with the batch over four devices; what each of them ends with."""
    codes, usage = draw(0, SIZE, CHANNELS), jnp.ones(SIZE)
    quantized = assigned(draw(1, 8, 4, 5, CHANNELS), codes)

    def one_device(codes, usage, quantized):
        state = update_codebook(
            codes,
            usage,
            quantized,
            KEY,
            move=True,
            dead_below=dead_below,
            axis_name="data",
        )
        return jax.tree.map(lambda a: a[None], state)

    data = PartitionSpec("data")
    whole = PartitionSpec()
    mapped = jax.shard_map(
        one_device,
        mesh=Mesh(np.array(jax.devices()[:4]), ("data",)),
        in_specs=(whole, whole, data),
        out_specs=data,
        check_vma=False,
    )
    return codes, usage, quantized, jax.jit(mapped)(codes, usage, quantized)


def test_four_devices_do_what_one_does():
    codes, usage, quantized, states = spread(dead_below=0.0)
    expected = update(codes, usage, quantized, KEY, move=True, dead_below=0.0)
    for values, one in zip(states, expected, strict=True):
        for value in values:
            np.testing.assert_allclose(value, one, rtol=1e-5, atol=1e-6)


def test_four_devices_revive_alike_from_all_of_the_batch():
    before, usage, quantized, (codes, _) = spread(dead_below=1e9)
    alone, _ = update(before, usage, quantized, KEY, move=True, dead_below=1e9)
    np.testing.assert_array_equal(codes[0], alone)
    for other in codes[1:]:
        np.testing.assert_array_equal(other, codes[0])
    vectors = np.asarray(quantized.continuous).reshape(4, -1, CHANNELS)
    origin = [
        {device for device in range(4) if (vectors[device] == code).all(-1).any()}
        for code in np.asarray(codes[0])
    ]
    assert all(origin)
    assert len(set.union(*origin)) > 1


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        (1, {}, "codebook_size=1 must be at least 2"),
        (
            4,
            {"update": "mean"},
            "codebook_update='mean' is unknown; choose 'ema' or 'gradient'",
        ),
    ],
)
def test_errors(size, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Codebook(size, 3, rngs=nnx.Rngs(0), **options)
