"""Garments in context: a grey 28x28 photo is dressed in a colour and put before one of five backgrounds.

The background is the *context* and the garment the *class*, independent by construction, so that a suffix
("on grass") has a visible meaning and a shift of background is a true out-of-distribution test.
Everything is a function of (photo, context, seed): what is stored is the photo alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from diffii.garments.catalog import CONTEXTS

SIZE = 32
"""Edge of a composed image in pixels; the photos' 28 are padded by 2 on each side."""

_ROWS = np.linspace(0.0, 1.0, SIZE, dtype=np.float32)[:, None]
_COLS = np.linspace(0.0, 1.0, SIZE, dtype=np.float32)[None, :]


def compose(photo: np.ndarray, context: str, seed: int) -> np.ndarray:
    """Put a grey photo (uint8, 28x28) before a background; returns uint8 RGB, 32x32x3.

    Raises ValueError for an unknown context or a photo of another shape or type.
    """
    if photo.shape != (28, 28) or photo.dtype != np.uint8:
        raise ValueError(f"a garment photo is uint8 28x28, got {photo.dtype} {photo.shape}")
    rng = np.random.default_rng([seed, list(CONTEXTS).index(context)])
    value = np.pad(photo.astype(np.float32) / 255.0, 2)[..., None]
    # Fashion-MNIST has a black ground: four times the value, clipped, is a mask with a soft rim.
    mask = np.clip(4.0 * value, 0.0, 1.0)
    tint = rng.uniform(0.8, 1.0, size=3).astype(np.float32)
    garment = (0.9 * value + 0.08) * tint
    image = mask * garment + (1.0 - mask) * _BACKGROUNDS[context](rng)
    return (np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _studio(rng: np.random.Generator) -> np.ndarray:
    grey = rng.uniform(0.55, 0.95) + rng.uniform(-0.2, 0.2) * (_ROWS - 0.5)
    return np.broadcast_to(grey[..., None], (SIZE, SIZE, 3))


def _grass(rng: np.random.Generator) -> np.ndarray:
    base = rng.uniform((0.15, 0.42, 0.08), (0.32, 0.62, 0.22)).astype(np.float32)
    blocks = np.kron(rng.uniform(-0.14, 0.14, (16, 16)), np.ones((2, 2)))
    return base + blocks[..., None] * np.array((0.8, 1.0, 0.6))


def _water(rng: np.random.Generator) -> np.ndarray:
    base = rng.uniform((0.08, 0.32, 0.62), (0.22, 0.52, 0.88)).astype(np.float32)
    bend = rng.uniform(0.05, 0.12) * np.sin(2 * np.pi * (rng.uniform(1.0, 2.0) * _COLS + rng.uniform()))
    waves = 0.12 * np.sin(2 * np.pi * (rng.uniform(3.0, 6.0) * (_ROWS + bend) + rng.uniform()))
    return base + waves[..., None]


def _sand(rng: np.random.Generator) -> np.ndarray:
    base = rng.uniform((0.78, 0.64, 0.34), (0.92, 0.78, 0.48)).astype(np.float32)
    return base + rng.normal(0.0, 0.045, (SIZE, SIZE, 1))


def _night(rng: np.random.Generator) -> np.ndarray:
    ground = np.full((SIZE, SIZE, 3), rng.uniform((0.0, 0.0, 0.05), (0.04, 0.05, 0.14)), dtype=np.float32)
    ground[rng.random((SIZE, SIZE)) < 0.01] = rng.uniform(0.7, 1.0)
    return ground


_BACKGROUNDS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "studio": _studio,
    "grass": _grass,
    "water": _water,
    "sand": _sand,
    "night": _night,
}
