"""What is staged of a row once its image is there, or once it is known that there will be none."""

from __future__ import annotations

from typing import Any

import numpy as np

from actors.failures import describe
from actors.starts import RowStart
from diffii.dataset import staged
from diffii.features import perceptual_hash
from diffii.hashing import sha256
from diffii.image_checks import fault
from diffii.images import Encoding, encode

_OF_PLAN = ("sample_id", "label", "ordinal", "seed", "parent_a", "parent_b", "suffix", "recipe")


def row_record(
    row: dict[str, Any],
    start: RowStart,
    outcome: np.ndarray | Exception | None,
    *,
    edited: bool,
    encoding: Encoding,
    quality: int | None,
    mark: bool,
) -> dict[str, Any]:
    """A row of the staged file, for an image, float (S, S, 3) in [0, 1] when it is a good one, or for an error.

    Without an outcome the fault of its start is the reason. `edited` keeps what only rows of edited images have. A row
    that is kept has its `pixels`, uint8 (S, S, 3), too, which are not staged.
    """
    columns = [*_OF_PLAN, *(staged.EDITED.names if edited else ())]
    record: dict[str, Any] = {name: row[name] for name in columns}
    record |= {
        "phi": start.at.phi,
        "theta": start.at.theta,
        "reason": "",
        "image_sha256": "",
        "phash": bytes(8),
        "image": b"",
    }
    if not isinstance(outcome, np.ndarray):
        reason = start.fault if outcome is None else describe(outcome)
        return record | {"outcome": staged.POISONED, "reason": reason}
    trouble = fault(outcome)
    if trouble is not None:
        return record | {"outcome": staged.REJECTED, "reason": trouble}
    pixels = (np.clip(outcome, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    data = encode(pixels, encoding, quality, mark)
    return record | {
        "outcome": staged.KEPT,
        "image": data,
        "image_sha256": sha256(data),
        "phash": perceptual_hash(pixels),
        "pixels": pixels,
    }
