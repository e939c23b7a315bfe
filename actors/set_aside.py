"""A real image that the model cannot take: set aside for good in a small file where its inversion would be.

A resume does not try it again, rows made from it are poisoned with its reason, and who wants it tried again removes
the file.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from diffii.dataset import layout
from diffii.dataset.storage import Storage

INVERTED, SIGNED = "inverted", "signed"


@dataclass(frozen=True, slots=True)
class SetAside:
    """`image` is its URL, `step` what cannot be done with it."""

    image: str
    sha256: str
    step: str
    reason: str

    def __str__(self) -> str:
        return f"{self.image} cannot be {self.step}: {self.reason}"

    def put(self, storage: Storage, name: str) -> str:
        """Write it down in place of the file `name`; returns where. The first reason stands."""
        place = layout.set_aside(name)
        storage.put_once(place, json.dumps(asdict(self), sort_keys=True, ensure_ascii=False).encode())
        return place


def read_set_aside(storage: Storage, place: str) -> SetAside | None:
    """What stands at a `layout.set_aside` place; None when nothing does."""
    data = storage.read_or_none(place)
    return None if data is None else SetAside(**json.loads(data))
