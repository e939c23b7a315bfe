from __future__ import annotations

import numpy as np
import pytest

from diffii.metrics.likeness import Memorisation, faithfulness, held_out_faithfulness, memorisation

RNG = np.random.default_rng(5)


def test_two_classes_by_hand() -> None:
    real = np.array([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    labels = np.array([0, 0, 1])
    # Prototypes: (1, 1) / sqrt 2, whatever the lengths, and (-1, 0).
    found = faithfulness(real, labels, np.array([[5.0, 5.0], [-3.0, 0.0], [0.0, 2.0]]), np.array([0, 0, 1]))
    assert found.cosine == pytest.approx([1.0, -(0.5**0.5), 0.0], abs=1e-12)
    assert found.nearest.tolist() == [0, 1, 0]


def test_a_class_without_a_real_image_has_no_cosine() -> None:
    found = faithfulness(np.eye(2), np.array([0, 1]), np.eye(2), np.array([0, 7]))
    assert found.cosine[0] == 1.0 and np.isnan(found.cosine[1])


def test_held_out_rows_never_meet_themselves() -> None:
    x, labels = RNG.normal(size=(30, 6)), RNG.integers(0, 4, size=30)
    labels[0], labels[1:][labels[1:] == 3] = 3, 2
    found = held_out_faithfulness(x, labels)
    assert np.isnan(found.cosine[0]) and found.nearest[0] != 3
    for row in range(1, 30):
        rest = np.arange(30) != row
        one = faithfulness(x[rest], labels[rest], x[[row]], labels[[row]])
        assert found.cosine[row] == pytest.approx(one.cosine[0])
        assert found.nearest[row] == one.nearest[0]


def test_memorisation_by_hand() -> None:
    real = np.array([[0.0], [1.0], [5.0]])
    # 0.4 is nearer to 0 than 1 is; 2.0 is at 1 from 1, which is not nearer than 0 is; 8 is at 3 from 5, 1 is at 4.
    found = memorisation(real, np.array([[0.4], [2.0], [8.0], [9.5]]))
    assert (found.close, found.rows) == (2, 4)
    # Held out: 0 -> 1 at 1, whose next is 5 at 4: close. 1 -> 0 at 1, 5 at 5: close. 5 -> 1 at 4, 0 at 1: not.
    assert (found.real_close, found.real_rows) == (2, 3)
    assert found.share == 0.5 and found.real_share == pytest.approx(2 / 3)


def test_copies_are_all_memorised_and_strangers_are_not() -> None:
    x = RNG.normal(size=(40, 6))
    assert memorisation(x, x).share == 1.0
    assert memorisation(x, x + 100).share == 0.0


def test_fresh_images_of_the_same_kind_score_what_real_ones_do() -> None:
    x, y = RNG.normal(size=(2, 800, 3))
    found = memorisation(x, y)
    assert found.share is not None and found.real_share is not None
    assert found.share == pytest.approx(found.real_share, abs=0.06)
    near = memorisation(x, x[RNG.integers(0, 800, 800)] + 0.01 * RNG.normal(size=(800, 3)))
    assert near.share is not None and near.share > found.real_share + 0.3


def test_repeated_real_images_call_nothing_closer() -> None:
    assert memorisation(np.ones((5, 2)), np.ones((3, 2))) == Memorisation(0, 3, 0, 5)


def test_what_cannot_be_said_is_not() -> None:
    assert memorisation(np.ones((1, 2)), np.ones((3, 2))).share is None
    two = memorisation(np.array([[0.0], [1.0]]), np.array([[0.1]]))
    assert (two.share, two.real_share) == (1.0, None)
    assert two + two == Memorisation(2, 2, 0, 0)
