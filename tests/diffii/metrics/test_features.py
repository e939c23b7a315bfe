from __future__ import annotations

import numpy as np
import pytest

from diffii.metrics.features import checked, distances, neighbour_radii


def test_equal_rows_are_at_distance_zero_exactly() -> None:
    x = np.random.default_rng(0).normal(1e3, 1, size=(50, 300))
    assert (np.diag(distances(x, x.copy())) == 0).all()


def test_radii_leave_the_row_itself_out() -> None:
    x = np.array([[0.0], [1.0], [3.0]])
    assert neighbour_radii(distances(x, x), 1).tolist() == [1, 1, 2]
    assert neighbour_radii(distances(x, x), 2).tolist() == [3, 2, 3]
    with pytest.raises(ValueError, match="does not exist"):
        neighbour_radii(distances(x, x), 3)


@pytest.mark.parametrize("bad", [np.ones(3), np.ones((2, 0)), np.array([[np.nan]]), np.array([[np.inf]])])
def test_what_is_no_finite_matrix_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="features"):
        checked(bad)
