"""What is kept of an image to compare it by: today a 64-bit perceptual hash."""

from __future__ import annotations

import imagehash
import numpy as np
from PIL import Image


def perceptual_hash(pixels: np.ndarray) -> bytes:
    """The DCT hash of a uint8 RGB image as 8 bytes, most significant bit first."""
    bits = imagehash.phash(Image.fromarray(pixels)).hash
    return np.packbits(bits.flatten()).tobytes()
