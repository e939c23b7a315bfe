"""The contexts that diffusion captioning chooses from when the user names none."""

from __future__ import annotations

from diffii.garments.catalog import CONTEXTS
from diffii.weights import EMBEDDED

GENERAL: tuple[str, ...] = (
    "on grass", "in a field of tall grass", "in a garden", "on a tree branch", "among green leaves", "in a forest",
    "on a rock", "on a mountain", "in the desert", "on sand", "on a beach", "on water", "in shallow water",
    "under water", "flying in a blue sky", "in a cloudy sky", "flying over water", "in the snow", "in the rain",
    "in fog", "at sunset", "at night", "in a city street", "on a road", "in a parking lot", "in front of a building",
    "in front of a house", "in a garage", "in a showroom", "on a runway", "at an airport", "on a wooden floor",
    "on a sofa", "on a bed", "on a table", "in a kitchen", "in a room", "by a window", "behind a fence",
    "in front of a crowd", "in a person's hand", "in a vase", "on a white background", "on a black background",
    "in a studio",
)  # fmt: skip
"""For any data set. Short, visible, and of many kinds, since the nearest one is taken when none fits."""


def default_candidates(model: str) -> tuple[str, ...]:
    """The contexts that `model` can tell apart: the embedded model's own five, else the general ones."""
    return tuple(CONTEXTS.values()) if model == EMBEDDED else GENERAL
