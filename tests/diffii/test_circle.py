"""The geometry of the noise sphere, over many draws and at its degenerate points."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffii.circle import angle, circle_point, gaussian

SHAPE = (4, 16, 16)


def three(seed: int, shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return gaussian(3 * seed, shape), gaussian(3 * seed + 1, shape), gaussian(3 * seed + 2, shape)


def test_variance_of_gaussian_parents_is_kept() -> None:
    rng = np.random.default_rng(0)
    squares = 0.0
    for phi in rng.uniform(0, 2 * math.pi, 20_000):
        a, b, spare = rng.standard_normal((3, 16), dtype=np.float32)
        squares += float(np.square(circle_point(a, b, phi, spare)).mean())
    # The common radius sqrt(|a| |b|) costs 1 / (2 D) of the variance; linear interpolation would cost a third.
    assert squares / 20_000 == pytest.approx(1 - 1 / 32, abs=0.01)


@given(seed=st.integers(0, 2**40), scale=st.floats(0.5, 2.0))
def test_both_parents_lie_on_the_circle(seed: int, scale: float) -> None:
    a, b, spare = three(seed)
    b = np.float32(scale) * b
    radius = math.sqrt(np.linalg.norm(a) * np.linalg.norm(b))
    theta = angle(a, b)
    np.testing.assert_allclose(circle_point(a, b, 0.0, spare), a * radius / np.linalg.norm(a), atol=1e-4)
    np.testing.assert_allclose(circle_point(a, b, theta, spare), b * radius / np.linalg.norm(b), atol=1e-4)


@given(seed=st.integers(0, 2**40), phi=st.floats(0, 2 * math.pi))
def test_every_point_has_the_chosen_norm(seed: int, phi: float) -> None:
    a, b, spare = three(seed)
    radius = math.sqrt(float(np.linalg.norm(a)) * float(np.linalg.norm(b)))
    assert np.linalg.norm(circle_point(a, b, phi, spare)) == pytest.approx(radius, rel=1e-4)
    assert np.linalg.norm(circle_point(a, b, phi, spare, "sqrt_d")) == pytest.approx(32.0, rel=1e-4)


def test_the_angle_is_the_papers() -> None:
    a, b, spare = three(7)
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    theta, phi = angle(a, b), 4.0
    l = -phi / theta  # noqa: E741, the paper's letter
    paper = math.sin((1 + l) * theta) / math.sin(theta) * a - math.sin(l * theta) / math.sin(theta) * b
    np.testing.assert_allclose(circle_point(a, b, phi, spare), paper, atol=1e-5)


@pytest.mark.parametrize("epsilon", [1e-3, 1e-5, 1e-7])
def test_near_duplicate_parents_stay_finite(epsilon: float) -> None:
    for seed in range(350):
        a, direction, spare = three(seed)
        b = a + np.float32(epsilon) * direction
        z = circle_point(a, b, 0.1 + seed, spare)
        assert np.isfinite(z).all()
        assert np.linalg.norm(z) == pytest.approx(float(np.linalg.norm(a)), rel=1e-2)


def test_identical_opposite_and_zero_parents_take_the_spare_direction() -> None:
    a, _, spare = three(1)
    zero = np.zeros_like(a)
    quarter = math.pi / 2
    for b in (a, -a, np.float32(2) * a, zero):
        z = circle_point(a, b, quarter, spare)
        assert np.isfinite(z).all()
        assert angle(z, a) == pytest.approx(quarter, abs=1e-3)
    assert np.isfinite(circle_point(zero, a, 1.0, spare)).all()


def test_values_that_are_not_finite_are_refused() -> None:
    a, b, spare = three(2)
    broken = a.copy()
    broken[0, 0, 0] = np.nan
    for parents in ((broken, b), (a, broken)):
        with pytest.raises(ValueError, match="not finite"):
            circle_point(*parents, 1.0, spare)
    with pytest.raises(ValueError, match="shapes differ"):
        circle_point(a, b[:1], 1.0, spare)


def test_large_float16_values_do_not_overflow() -> None:
    a, b, spare = three(3)
    a, b = (100 * a).astype(np.float16), (100 * b).astype(np.float16)
    z = circle_point(a, b, 2.0, spare)
    assert z.dtype == np.float32
    assert np.isfinite(z).all()


def test_a_row_does_not_depend_on_its_batch() -> None:
    # Latents of SD's size, where BLAS and torch would split a sum over threads.
    rows = [three(seed, (4, 64, 64)) for seed in range(64)]
    together = [circle_point(a, b, 0.1 * k, spare) for k, (a, b, spare) in enumerate(rows)]
    stacked = np.stack([a for a, _, _ in rows])
    for k in (0, 31, 63):
        _, b, spare = rows[k]
        alone = circle_point(stacked[k], b, 0.1 * k, spare)
        assert alone.tobytes() == together[k].tobytes()


def test_gaussian_noise_is_a_function_of_the_seed() -> None:
    assert gaussian(5, SHAPE).tobytes() == gaussian(5, SHAPE).tobytes()
    assert gaussian(5, SHAPE).tobytes() != gaussian(6, SHAPE).tobytes()
    # A golden value: another numpy that drew otherwise would change every data set.
    np.testing.assert_allclose(gaussian(0, (3,)), GOLDEN, rtol=1e-6)


GOLDEN = [-0.24822916, -0.026767015, -1.9444163]
