"""Image checks: what a failing model makes is caught, and no real photo is."""

from __future__ import annotations

import numpy as np
import pytest

from diffii.garments.catalog import CONTEXTS
from diffii.garments.data import pool
from diffii.garments.scene import compose
from diffii.image_checks import (
    CONSTANT,
    LOW_DETAIL,
    MIN_DETAIL,
    MIN_DEVIATION,
    NON_FINITE,
    SATURATED,
    detail,
    fault,
    saturated_share,
)

SIZE = 32


def photo(row: int = 0, context: str = "grass") -> np.ndarray:
    return compose(pool().pixels[row], context, row).astype(np.float32) / 255.0


@pytest.mark.parametrize("share", [5, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("context", CONTEXTS)
def test_no_photo_of_the_pool_is_flagged_in_any_context(context: str, share: int) -> None:
    """Of the five contexts each photo is looked at in one, or in all."""
    images = [photo(row, context) for row in range(list(CONTEXTS).index(context) % share, len(pool().pixels), share)]
    assert len(images) == 1000 / share
    assert [row for row, image in enumerate(images) if fault(image) is not None] == []
    # Not narrowly: twice the limit is still below every photo.
    assert min(image.std() for image in images) > 2 * MIN_DEVIATION
    assert min(detail(image) for image in images) > 2 * MIN_DETAIL
    assert max(saturated_share(image) for image in images) < 0.5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite(value: float) -> None:
    image = photo()
    image[3, 4, 1] = value
    assert fault(image) == NON_FINITE


@pytest.mark.parametrize("level", [-3.0, 0.0, 0.4, 1.0, 7.0])
def test_one_colour_even_with_faint_noise_or_out_of_range(level: float) -> None:
    noise = 0.01 * np.random.default_rng(0).standard_normal((SIZE, SIZE, 3))
    assert fault(np.full((SIZE, SIZE, 3), level)) == CONSTANT
    assert fault(level + noise) == CONSTANT


def test_burnt_out() -> None:
    burnt = (np.random.default_rng(0).random((SIZE, SIZE, 3)) < 0.5).astype(np.float32) * 9.0 - 4.0
    assert fault(burnt) == SATURATED
    # A small object on pure white is a product photo.
    product = np.ones((SIZE, SIZE, 3), np.float32)
    product[10:20, 12:20] = photo()[10:20, 12:20]
    assert fault(product) is None


def test_a_smear_without_edges() -> None:
    ramp = np.broadcast_to(np.linspace(0.35, 0.6, SIZE)[:, None, None], (SIZE, SIZE, 3))
    assert fault(ramp) == LOW_DETAIL
    noisy = ramp.repeat(16, 0).repeat(16, 1) + 0.015 * np.random.default_rng(0).standard_normal((512, 512, 3))
    assert fault(noisy) == LOW_DETAIL


@pytest.mark.parametrize("scale", [2, 3, 8])
def test_the_size_of_an_image_does_not_decide(scale: int) -> None:
    image = photo(5, "studio")
    larger = image.repeat(scale, 0).repeat(scale, 1)
    assert detail(larger) == pytest.approx(detail(image), rel=1e-5)
    assert saturated_share(larger) == pytest.approx(saturated_share(image))


def test_odd_sizes_and_wrong_shapes() -> None:
    assert detail(np.random.default_rng(0).random((33, 47, 3))) > 0.1
    assert detail(np.zeros((1, 1, 3))) == 0.0
    for wrong in (np.zeros((SIZE, SIZE)), np.zeros((SIZE, SIZE, 4)), np.zeros((0, SIZE, 3))):
        with pytest.raises(ValueError, match=r"\(S, S, 3\)"):
            fault(wrong)
