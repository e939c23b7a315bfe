"""Cheap checks of a generated image, before it is encoded: is there a picture at all?

They look for what a failing model makes - NaN, one flat colour, a burnt-out frame, a smear without edges - and not
for taste: an image that a check is unsure about passes.

The limits stand well below what real photos reach. Measured on the embedded pool: each of its 1000 photos in each of
the 5 contexts (`night` is nearly black, `studio` nearly white), 5000 images of 32 px.
"""

from __future__ import annotations

import numpy as np

NON_FINITE = "non-finite"
CONSTANT = "constant"
SATURATED = "saturated"
LOW_DETAIL = "low-detail"

MIN_DEVIATION = 0.02
"""Below this deviation over all pixels and channels an image is one colour. The pool's lowest is 0.062 (studio), and
0.02 is what noise of 5 levels in 256 on a flat ground has."""
MAX_SATURATED = 0.98
"""Above this share of pixels whose every channel is at 0 or 1 an image is burnt out. The pool's highest is 0.25; the
limit is far from it because a product photo on pure white is a good photo with nine tenths of white."""
MIN_DETAIL = 0.005
"""Below this mean step between neighbouring cells of a 32 x 32 grid there is a smear and no object. The pool's lowest
is 0.0187 (a white shirt in a studio); a plain ramp from 0.3 to 0.6 has 0.0048. Cells, not pixels, so that neither
the image's size nor fine noise decides."""

_GRID = 32
_LEVEL = 1.0 / 255.0


def fault(image: np.ndarray) -> str | None:
    """Why a float image (S, S, 3), about [0, 1] and not yet clipped, is no picture; None when it may be one.

    Raises ValueError for another shape.
    """
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"an image to check is (S, S, 3), got {image.shape}")
    if not np.isfinite(image).all():
        return NON_FINITE
    # Clipped first: what is beyond the range is lost in the file, too.
    pixels = np.clip(image, 0.0, 1.0).astype(np.float32)
    if pixels.std(dtype=np.float64) < MIN_DEVIATION:
        return CONSTANT
    if saturated_share(pixels) > MAX_SATURATED:
        return SATURATED
    if detail(pixels) < MIN_DETAIL:
        return LOW_DETAIL
    return None


def saturated_share(pixels: np.ndarray) -> float:
    """Share of the pixels (H, W, 3) in [0, 1] whose every channel is within one 8-bit level of 0 or 1."""
    return float(((pixels <= _LEVEL) | (pixels >= 1.0 - _LEVEL)).all(axis=2).mean())


def detail(pixels: np.ndarray) -> float:
    """Mean absolute step between neighbouring cells of a grid of at most 32 x 32 over pixels (H, W, 3) in [0, 1].

    0 for an image of one pixel, which has no neighbours.
    """
    cells = _cells(_cells(pixels.astype(np.float64), 0), 1)
    steps = [np.abs(np.diff(cells, axis=axis)) for axis in (0, 1) if cells.shape[axis] > 1]
    return float(np.mean([step.mean() for step in steps])) if steps else 0.0


def _cells(values: np.ndarray, axis: int) -> np.ndarray:
    """Means over at most 32 nearly equal stretches of one axis."""
    length = values.shape[axis]
    if length <= _GRID:
        return values
    edges = np.arange(_GRID + 1) * length // _GRID
    sizes = np.diff(edges).reshape([-1 if k == axis else 1 for k in range(values.ndim)])
    return np.add.reduceat(values, edges[:-1], axis=axis) / sizes
