"""Mixup and CutMix: images of a batch blended with one another, and their labels with them.

Mixup (Zhang et al., ICLR 2018) adds two images, CutMix (Yun et al., ICCV 2019) pastes a rectangle of one into another;
the share follows Beta(1, 1), which is uniform.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from diffii.classifiers.job import Blend


def blend(kind: Blend, p: float, x: Tensor, y: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Images float (B, 3, S, S) and label distributions (B, K), blended with probability `p`, else as they are."""
    if not kind or rng.random() >= p:
        return x, y
    other = torch.from_numpy(rng.permutation(len(x)))
    share = float(rng.random())
    if kind == "mixup":
        return share * x + (1.0 - share) * x[other], share * y + (1.0 - share) * y[other]
    top, bottom, left, right = _rectangle(x.shape[2], x.shape[3], 1.0 - share, rng)
    x = x.clone()
    x[:, :, top:bottom, left:right] = x[other, :, top:bottom, left:right]
    share = 1.0 - (bottom - top) * (right - left) / (x.shape[2] * x.shape[3])
    return x, share * y + (1.0 - share) * y[other]


def _rectangle(height: int, width: int, area: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of a rectangle of this share of the area, cut off at the border."""
    half_height, half_width = height * area**0.5 / 2, width * area**0.5 / 2
    row, column = rng.uniform(0, height), rng.uniform(0, width)
    top, bottom = (int(np.clip(round(edge), 0, height)) for edge in (row - half_height, row + half_height))
    left, right = (int(np.clip(round(edge), 0, width)) for edge in (column - half_width, column + half_width))
    return top, bottom, left, right
