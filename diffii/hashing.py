"""Names made from content: the same things give the same name on every machine."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest(*parts: Any) -> str:
    """SHA-256 (hex) over the canonical JSON of the parts; str, int, float, bool, None, lists and dicts."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def seed64(*parts: Any) -> int:
    """An unsigned 64-bit seed from the parts."""
    return int(digest(*parts)[:16], 16)


def uniform(*parts: Any) -> float:
    """A number in [0, 1) from the parts, with 53 random bits."""
    return (seed64(*parts) >> 11) / 2.0**53


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
