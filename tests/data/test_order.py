"""The order of images and the random numbers are functions of seed and position."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepprism_jax.data.order import image_order, uniforms

SEEDS = st.integers(0, 2**32 - 1)
IMAGES = st.integers(1, 50)
STARTS = st.integers(0, 10**9)


@given(SEEDS, IMAGES, st.integers(0, 10**6))
def test_every_epoch_is_a_permutation(seed, images, epoch):
    order = image_order(seed, images, epoch * images, images)
    assert sorted(order) == list(range(images))


@given(SEEDS, IMAGES, STARTS, st.integers(1, 60), st.integers(1, 60))
def test_parts_of_the_order_are_the_order(seed, images, start, first, second):
    whole = image_order(seed, images, start, first + second)
    parts = [
        image_order(seed, images, start, first),
        image_order(seed, images, start + first, second),
    ]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


@given(SEEDS, STARTS, st.integers(1, 60), st.integers(1, 60))
def test_parts_of_the_numbers_are_the_numbers(seed, start, first, second):
    whole = uniforms(seed, start, first + second)
    parts = [uniforms(seed, start, first), uniforms(seed, start + first, second)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert whole.min() >= 0
    assert whole.max() < 1


def test_epochs_and_seeds_differ():
    orders = [
        tuple(image_order(seed, 20, epoch * 20, 20))
        for seed in range(5)
        for epoch in range(5)
    ]
    assert len(set(orders)) == 25


def test_every_image_comes_first_equally_often():
    firsts = [image_order(7, 5, 5 * epoch, 5)[0] for epoch in range(5000)]
    counts = np.bincount(firsts, minlength=5)
    # Binomial(5000, 1/5) has a standard deviation of 28.
    assert np.abs(counts - 1000).max() < 4 * 28.3


@pytest.mark.parametrize("column", range(4))
def test_numbers_are_uniform(column):
    numbers = uniforms(3, 0, 20_000)[:, column]
    counts = np.histogram(numbers, bins=10, range=(0, 1))[0]
    assert np.abs(counts - 2000).max() < 4 * np.sqrt(20_000 * 0.1 * 0.9)


def test_the_order_never_changes():
    # A run saved today must resume with the same images under any later version.
    expected = [3, 2, 4, 1, 0, 2, 1, 3, 0, 4]
    assert image_order(0, 5, 0, 10).tolist() == expected
    np.testing.assert_allclose(
        uniforms(0, 0, 1)[0],
        [0.011546754286331562, 0.241549196562718, 0.111425855514938, 0.564414621607134],
        rtol=1e-12,
    )
