"""Random circle interpolation (Diff-II, section 3.2): a new noise on the great circle through two inversions.

    D  size of a flattened latent (channels x height x width)

Two inversions a, b of one class, scaled to a common radius r = sqrt(|a| |b|), span a plane; v is the part of b
orthogonal to a, scaled to r. The point at angle phi is

    z = cos(phi) a + sin(phi) v,      phi uniform on [0, 2 pi)

phi = 0 is a's direction and phi = theta (the angle between a and b) is b's. The paper writes the same circle as
sin((1+l) theta)/sin(theta) a - sin(l theta)/sin(theta) b; its l is -phi/theta. For Gaussian a and b the variance
is kept at every phi, which linear interpolation loses.

All of it is numpy in float32 with sums in float64, one row at a time: numpy adds pairwise on one thread, so a row's
result depends neither on the batch it is in nor on the number of cores. (In float16, the reference's choice,
near-identical inversions give NaN.)
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

Norm = Literal["parents", "sqrt_d"]

COLLINEAR = 1e-4
"""Below this sine two parents span no plane that float32 could resolve; a spare direction takes b's place."""


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """The angle theta between two latents of any shape, in [0, pi]; 0 when either is all zero."""
    a, b = _flat(a), _flat(b)
    norms = _norm(a) * _norm(b)
    return math.acos(min(1.0, max(-1.0, _dot(a, b) / norms))) if norms > 0 else 0.0


def circle_point(a: np.ndarray, b: np.ndarray, phi: float, spare: np.ndarray, norm: Norm = "parents") -> np.ndarray:
    """The point at angle `phi` (radians) on the circle through `a` and `b`; float32 of a's shape.

    `spare` is fresh Gaussian noise of the same shape. It replaces a parent that is all zero, and gives the plane its
    second direction when the parents are identical or opposite. `norm` keeps the parents' common radius
    sqrt(|a| |b|), or scales to sqrt(D), the expected norm of Gaussian noise.
    Raises ValueError when shapes differ or a value is not finite.
    """
    if not a.shape == b.shape == spare.shape:
        raise ValueError(f"the shapes differ: {a.shape}, {b.shape} and spare {spare.shape}")
    x, y, extra = _flat(a), _flat(b), _flat(spare)
    if not (np.isfinite(x).all() and np.isfinite(y).all() and math.isfinite(phi)):
        raise ValueError("a parent or phi is not finite")
    x = x if _norm(x) > 0 else extra
    y = y if _norm(y) > 0 else extra
    radius = math.sqrt(_norm(x) * _norm(y)) if norm == "parents" else math.sqrt(x.size)
    first = x / np.float32(_norm(x))
    second = _orthogonal(first, y)
    if second is None:
        second = _orthogonal(first, extra)
    if second is None:
        raise ValueError("the spare direction is collinear with the parents too")
    z = np.float32(math.cos(phi) * radius) * first + np.float32(math.sin(phi) * radius) * second
    return z.reshape(a.shape)


def gaussian(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 standard normal noise of `shape` from one 64-bit seed; the same on every machine."""
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape, dtype=np.float32)


def _orthogonal(unit: np.ndarray, other: np.ndarray) -> np.ndarray | None:
    """Unit vector of the part of `other` orthogonal to `unit`; None when there is none to speak of."""
    direction = other / np.float32(_norm(other))
    rest = direction - np.float32(_dot(unit, direction)) * unit
    if _norm(rest) < COLLINEAR:
        return None
    # Taking the projection off twice: once leaves a float32 residue along `unit` when the angle is small.
    rest = rest - np.float32(_dot(unit, rest)) * unit
    return rest / np.float32(_norm(rest))


def _flat(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x, dtype=np.float32).reshape(-1)


def _dot(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.sum(x.astype(np.float64) * y))


def _norm(x: np.ndarray) -> float:
    return math.sqrt(_dot(x, x))
