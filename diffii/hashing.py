"""Names made from content: the same things give the same name on every machine."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

# Made once: `json.dumps` would make one per call, and a plan names things seven times a row.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(*parts: Any) -> str:
    """SHA-256 (hex) over the canonical JSON of the parts; str, int, float, bool, None, lists and dicts."""
    return hashlib.sha256(_CANONICAL.encode(parts).encode()).hexdigest()


def seed64(*parts: Any) -> int:
    """An unsigned 64-bit seed from the parts."""
    return int(digest(*parts)[:16], 16)


def uniform(*parts: Any) -> float:
    """A number in [0, 1) from the parts, with 53 random bits."""
    return (seed64(*parts) >> 11) / 2.0**53


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, which need not fit into memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
