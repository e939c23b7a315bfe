from __future__ import annotations

import numpy as np
import pytest

from diffii.metrics.manifold import manifold

RNG = np.random.default_rng(3)


def test_four_points_on_a_line_by_hand() -> None:
    real = np.array([[0.0], [1.0], [2.0], [10.0]])
    made = np.array([[1.5], [2.5], [30.0]])
    # k = 1. Real balls reach 1, 1, 1, 8: 1.5 lies in those of 1 and 2, 2.5 in those of 2 and 10, 30 in none.
    # Synthetic balls reach 1, 1, 27.5: 1, 2 and 10 lie in one of them, 0 does not.
    found = manifold(real, made, k_ball=1, k_density=1)
    assert found.precision == pytest.approx(2 / 3)
    assert found.recall == pytest.approx(3 / 4)
    assert found.density == pytest.approx(4 / 3)
    assert found.coverage == pytest.approx(3 / 4)


def test_density_divides_by_k() -> None:
    real, made = np.array([[0.0], [1.0], [3.0]]), np.array([[1.0], [100.0]])
    # k = 2: real balls reach 3, 2, 3; 1.0 lies in all three, 100 in none.
    found = manifold(real, made, k_ball=1, k_density=2)
    assert found.density == pytest.approx((3 / 2 + 0) / 2)
    assert (found.k_ball, found.k_density) == (1, 2)


def test_identical_sets_have_everything() -> None:
    x = RNG.normal(size=(60, 5))
    found = manifold(x, x)
    assert (found.precision, found.recall, found.coverage) == (1.0, 1.0, 1.0)
    # Each row lies in its own ball and in those of its k nearest on average.
    assert found.density == pytest.approx((5 + 1) / 5)


def test_disjoint_sets_have_nothing() -> None:
    x = RNG.normal(size=(60, 5))
    found = manifold(x, x + 1000)
    assert (found.precision, found.recall, found.density, found.coverage) == (0.0, 0.0, 0.0, 0.0)


def test_one_repeated_real_image_is_precise_but_recalls_next_to_nothing() -> None:
    x = RNG.normal(size=(60, 5))
    found = manifold(x, np.repeat(x[:1], 60, axis=0))
    assert found.precision == 1.0
    assert found.recall == pytest.approx(1 / 60)
    assert found.coverage < 0.3


def test_one_repeated_image_on_both_sides_holds_itself() -> None:
    x = np.repeat(RNG.normal(size=(1, 5)), 8, axis=0)
    found = manifold(x, x)
    assert (found.precision, found.recall, found.coverage) == (1.0, 1.0, 1.0)


def test_k_is_cut_to_what_there_is_and_said() -> None:
    found = manifold(RNG.normal(size=(3, 4)), RNG.normal(size=(9, 4)))
    assert (found.k_ball, found.k_density) == (2, 2)


def test_features_of_two_extractors_are_refused() -> None:
    with pytest.raises(ValueError, match="4 columns and synthetic ones 5"):
        manifold(np.ones((3, 4)), np.ones((3, 5)))
