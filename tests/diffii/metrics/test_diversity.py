from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffii.metrics.diversity import mean_distance, vendi_score


def test_one_repeated_image_is_one_image() -> None:
    x = np.repeat([[3.0, 4.0, 0.0]], 20, axis=0)
    assert vendi_score(x) == pytest.approx(1.0)
    assert mean_distance(x) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("columns", [6, 40])
def test_images_at_right_angles_count_each(columns: int) -> None:
    x = np.eye(6, columns) * np.arange(1, 7)[:, None]
    assert vendi_score(x) == pytest.approx(6.0)
    assert mean_distance(x) == pytest.approx(1.0)


def test_two_directions_by_hand() -> None:
    # Three of one and one of another: eigenvalues 3/4 and 1/4; three of six pairs at right angles.
    x = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
    assert vendi_score(x) == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))
    assert mean_distance(x) == pytest.approx(3 / 6)


@given(st.integers(2, 12), st.integers(1, 30), st.integers(0, 10**6))
@settings(max_examples=40)
def test_limits_order_and_length_do_not_matter(rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns))
    score = vendi_score(x)
    assert 1 - 1e-9 <= score <= rows + 1e-9
    other = (x * rng.uniform(0.1, 9, size=(rows, 1)))[rng.permutation(rows)]
    assert vendi_score(other) == pytest.approx(score)
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    pairs = [1 - u[i] @ u[j] for i in range(rows) for j in range(i)]
    assert mean_distance(other) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_a_row_without_direction_is_named() -> None:
    with pytest.raises(ValueError, match="row 1 is all zero"):
        vendi_score(np.array([[1.0, 2.0], [0.0, 0.0]]))
