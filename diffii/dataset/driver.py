"""The heartbeat of whoever writes a data set, as others see it: the file that `engine.heartbeat` writes."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from diffii.dataset import layout
from diffii.dataset.storage import Storage

BEAT_SECONDS = 10.0
SILENT_SECONDS = 45.0
"""Four beats, and a stall of storage in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """What a driver does, as it said with its last beat."""

    stage: str = ""
    """`caption`, `learn`, `invert` or `generate`; empty before the first."""
    unit: str = "images"
    wanted: int = 0
    done: int = 0
    per_second: float = 0.0
    """Units over the last minutes."""
    actors_wanted: int = 0
    actors_held: int = 0
    actors_busy: int = 0
    waiting_seconds: float = 0.0
    """For how long no machine has had room for an actor; 0 while there is one, or while it may still be starting."""

    @property
    def seconds_left(self) -> float | None:
        """Of the stage, at this speed; None when nobody can tell."""
        return (self.wanted - self.done) / self.per_second if self.per_second > 0 else None


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver as its heartbeat says it is; `beat` grows while it lives."""

    host: str
    machine: str
    """This boot of this kernel and its process numbers: a restarted container has the host name of the dead one."""
    pid: int
    started: float
    """When the process began, by the host's clock: numbers are given out again."""
    token: str
    beat: int = 0
    at: float = 0.0
    """When it last beat, by its host's clock."""
    doing: Doing = Doing()

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def read_driver(storage: Storage) -> Driver | None:
    """Who last said that it writes here; None when it has left, or its file is damaged."""
    data = storage.read_or_none(layout.HEARTBEAT)
    try:
        if not data:
            return None
        found = json.loads(data)
        return Driver(**{**found, "doing": Doing(**found.get("doing", {}))})
    except (ValueError, TypeError, AttributeError):
        return None


class Watch:
    """Tells a living writer from one that is gone by looks at its heartbeat alone, and by this process's own clock."""

    def __init__(self, storage: Storage) -> None:
        self._storage, self._since = storage, time.monotonic()
        self._last: Driver | None = None

    def gone(self) -> bool:
        """Whether nobody writes now: the writer has left, or its heartbeat has stood still for `SILENT_SECONDS`."""
        now = read_driver(self._storage)
        if now != self._last:
            self._last, self._since = now, time.monotonic()
        return now is None or time.monotonic() - self._since > SILENT_SECONDS
