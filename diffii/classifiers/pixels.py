"""Images as one array of pixels."""

from __future__ import annotations

import numpy as np
from PIL import Image

from diffii.dataset.labelled import Labelled
from diffii.images import fit


def pixels_of(images: Labelled, edge: int | None = None, most: int = 224) -> np.ndarray:
    """uint8 (N, S, S, 3): the shorter edge scaled to S, the middle square cut out.

    Without `edge` S is the first image's shorter edge, at most `most`.
    """
    count = len(images.labels)
    if edge is None:
        edge = min(most, *_rgb(images.image(0)).size) if count else most
    found = np.empty((count, edge, edge, 3), np.uint8)
    for number in range(count):
        found[number] = fit(_rgb(images.image(number)), edge)
    return found


def _rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")
