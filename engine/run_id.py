"""The name of a run: the same for every attempt at the same output, whoever makes it and from wherever."""

from __future__ import annotations

import os
import re

from diffii.hashing import sha256
from engine.config import Config

_LONGEST = 24
"""Letters of the output's own name in it: names of pods and jobs are short."""


def run_id(config: Config) -> str:
    """`diffii-<name of the output>-<digest of its URL>`: lower-case letters, digits and hyphens, at most 40.

    Settings are not in it, on purpose: two drivers with different settings are as much in each other's way as two with
    the same. `identity_digest` tells them apart.
    """
    url = config.output.url.rstrip("/")
    place = url if "://" in url else os.path.abspath(url)  # noqa: PTH100
    name = re.sub(r"[^a-z0-9]+", "-", place.rpartition("/")[2].lower()).strip("-")[:_LONGEST].strip("-")
    return "-".join(part for part in ("diffii", name, sha256(place.encode())[:8]) if part)


def identity_digest(config: Config) -> str:
    """What of the settings may not change between two attempts at one output (law 4), as 16 hex digits."""
    said = sorted((key, repr(value)) for key, value in config.identity().items())
    return sha256(repr(said).encode())[:16]
