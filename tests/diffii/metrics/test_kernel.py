from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from diffii.metrics.kernel import kernel_distance, squared_mmd

RNG = np.random.default_rng(7)


def test_two_points_by_hand() -> None:
    # k(a, b) = (a b + 1)^3: within 1 and 27; across (1 + 1 + 8 + 27) / 4.
    assert squared_mmd(np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])) == pytest.approx(1 + 27 - 2 * 37 / 4)


def test_it_is_what_torchmetrics_computes() -> None:
    x, y = RNG.normal(size=(40, 16)), RNG.normal(0.5, 1.2, size=(40, 16))
    theirs = poly_mmd(torch.from_numpy(x), torch.from_numpy(y))
    assert squared_mmd(x, y) == pytest.approx(float(theirs), rel=1e-9)


def test_one_distribution_is_at_distance_zero_and_another_is_not() -> None:
    x, y = RNG.normal(size=(2, 1500, 8))
    same, other = kernel_distance(x, y, size=500), kernel_distance(x, y + 0.5, size=500)
    assert abs(same.mean) < 0.02 < 0.2 < other.mean
    assert same.size == 500 and same.std > 0


def test_a_set_against_itself_is_not_above_zero() -> None:
    x = RNG.normal(size=(50, 8))
    assert kernel_distance(x, x).mean <= 0
    assert kernel_distance(x, x).std == 0.0


def test_the_seed_fixes_the_draws_and_the_smaller_side_their_size() -> None:
    x, y = RNG.normal(size=(30, 4)), RNG.normal(size=(90, 4))
    assert kernel_distance(x, y) == kernel_distance(x, y)
    assert kernel_distance(x, y) != kernel_distance(x, y, seed=1)
    assert kernel_distance(x, y).size == 30


def test_one_row_is_too_few() -> None:
    with pytest.raises(ValueError, match="2 rows are needed"):
        kernel_distance(np.ones((1, 3)), np.ones((5, 3)))
