"""Cards on which the run's micro-batch does not fit, where the run lets them take less (`actors.allow_smaller_batch`).

An actor that runs out of memory writes down half of its batch for every card of that name, and ends; who starts on
such a card begins with the least that was written. So a kind of card has one shape as long as the data set grows, and
the fingerprint of each chunk says which. That other shape is why such a data set is not reproducible.
"""

from __future__ import annotations

import json

from diffii.dataset import layout
from diffii.dataset.storage import Storage
from diffii.hashing import digest


def fitting(storage: Storage, card: str, micro_batch: int) -> int:
    """Rows of a model call on a card of this name: `micro_batch`, or what was found to be left of it."""
    prefix = f"{_kind(card)}-"
    found = [name.removeprefix(prefix) for name in storage.names(layout.CARDS) if name.startswith(prefix)]
    return min([micro_batch, *(int(name.removesuffix(".json")) for name in found)])


def make_smaller(storage: Storage, card: str, rows: int) -> bool:
    """Halve the batch of such cards, after `rows` did not fit; False when it is one row already."""
    if rows == 1:
        return False
    half = rows // 2
    told = json.dumps({"card": card, "rows": half}, sort_keys=True).encode()
    storage.put_once(f"{layout.CARDS}/{_kind(card)}-{half:04d}.json", told)
    return True


def _kind(card: str) -> str:
    return digest(card)[:16]
