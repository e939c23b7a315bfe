"""The arms: which images a row begins from, and where."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffii.arms import ARMS, Knobs, Parent
from diffii.arms.edit import steps_of
from diffii.arms.interface import Moment
from diffii.circle import angle, circle_point, gaussian

SHAPE = (4, 8, 8)
KNOBS = Knobs(strengths=(0.5, 0.7, 0.9), gamma=0.5)
MOMENT = Moment(shape=SHAPE, seed=7, phi=0.0, strength=1.0, alphas=(0.9, 0.6, 0.3, 0.1, 0.01), norm="sqrt_d")


def parent(seed: int) -> Parent:
    return Parent(latent=gaussian(seed, SHAPE) * np.float32(0.5), inversion=gaussian(seed + 100, SHAPE))


@pytest.mark.parametrize("name", ARMS)
@given(
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=5).filter(any),
    ordinal=st.integers(0, 10**9),
    seed=st.integers(0, 2**64 - 1),
)
def test_a_draw_names_images_that_there_are(name: str, sizes: list[int], ordinal: int, seed: int) -> None:
    label = next(label for label, images in enumerate(sizes) if images)
    drawn = ARMS[name].draw(sizes, label, ordinal, seed, KNOBS)
    assert len(drawn.parents) == {"nothing": 0, "latents": 1, "inversions": 2}[ARMS[name].takes]
    assert all(0 <= index < sizes[of] for of, index in drawn.parents)
    assert 0 < drawn.strength <= 1 and 0 < drawn.label_weight <= 1
    assert drawn == ARMS[name].draw(sizes, label, ordinal, seed, KNOBS)


def test_circle_and_slerp_take_the_pairs_of_diff_ii() -> None:
    for ordinal in range(40):
        ours, circle, slerp = (ARMS[name].draw([5, 5], 1, ordinal, 3, KNOBS) for name in ("diff-ii", "circle", "slerp"))
        assert circle == ours
        assert slerp.parents == ours.parents
        assert 0 <= slerp.phi < 1


def test_slerp_stays_between_its_parents() -> None:
    a, b = parent(1), parent(2)
    theta = angle(a.inversion, b.inversion)
    for share in (0.0, 0.25, 0.5, 1.0):
        start = ARMS["slerp"].start([a, b], replace(MOMENT, phi=share))
        assert math.isclose(start.phi, share * theta)
        assert math.isclose(angle(a.inversion, start.noise), share * theta, abs_tol=1e-3)
        assert math.isclose(angle(start.noise, b.inversion), (1 - share) * theta, abs_tol=1e-3)


def test_noise_is_that_of_the_seed_and_asks_for_no_image() -> None:
    start = ARMS["noise"].start([], MOMENT)
    np.testing.assert_array_equal(start.noise, gaussian(7, SHAPE))
    assert (start.steps, start.theta, start.phi) == (5, 0.0, 0.0)


def test_a_single_image_is_paired_with_its_own_latent_noised() -> None:
    alone = parent(1)
    start = ARMS["diff-ii"].start([alone], replace(MOMENT, phi=math.pi / 2))
    # A quarter turn from the image's inversion, towards a partner that hardly knows it.
    assert math.isclose(angle(start.noise, alone.inversion), math.pi / 2, abs_tol=1e-3)
    assert start.theta == pytest.approx(math.pi / 2, abs=0.3)
    pair = ARMS["diff-ii"].start([alone, parent(2)], replace(MOMENT, phi=1.0))
    point = circle_point(alone.inversion, parent(2).inversion, 1.0, gaussian(7, SHAPE), "sqrt_d")
    np.testing.assert_array_equal(pair.noise, point)


@pytest.mark.parametrize(("strength", "steps"), [(1.0, 5), (0.9, 4), (0.6, 3), (0.1, 1), (0.01, 1)])
def test_an_edit_begins_part_of_the_way_up(strength: float, steps: int) -> None:
    image = parent(1)
    start = ARMS["diff-aug"].start([image], replace(MOMENT, strength=strength))
    alpha = MOMENT.alphas[steps - 1]
    expected = math.sqrt(alpha) * image.latent + math.sqrt(1 - alpha) * gaussian(7, SHAPE)
    assert (start.steps, steps_of(strength, 5)) == (steps, steps)
    np.testing.assert_allclose(start.noise, expected, atol=1e-6)


def test_diff_aug_takes_every_image_and_strength_in_turn() -> None:
    drawn = [ARMS["diff-aug"].draw([4, 3], 1, ordinal, 9, KNOBS) for ordinal in range(12)]
    assert Counter(row.parents for row in drawn) == {((1, image),): 4 for image in range(3)}
    assert Counter(row.strength for row in drawn) == {0.5: 4, 0.7: 4, 0.9: 4}
    assert {row.label_weight for row in drawn} == {1.0}


def test_diff_mix_edits_other_classes_equally_often_and_softens_the_label() -> None:
    drawn = [ARMS["diff-mix"].draw([50, 2, 0, 3], 1, ordinal, 9, KNOBS) for ordinal in range(60)]
    assert Counter(row.parents[0][0] for row in drawn) == {0: 30, 3: 30}
    assert len({row.parents for row in drawn}) > 15, "not one image of each class alone"
    assert all(row.label_weight == row.strength**0.5 for row in drawn)
    hard = Knobs(strengths=(0.5,), gamma=0.0)
    assert ARMS["diff-mix"].draw([5, 5], 0, 0, 1, hard).label_weight == 1.0
    alone = ARMS["diff-mix"].draw([5], 0, 0, 1, KNOBS)
    assert (alone.parents[0][0], alone.label_weight) == (0, 1.0)
