"""The lock of an actor's GPU, which knows for how long it was held: how busy the card is, seen from its actor."""

from __future__ import annotations

import threading
import time


class GpuClock:
    """A lock for `with`, from when the model is loaded. Threads of one process share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turned = time.monotonic()
        self._busy = self._idle = 0.0

    def __enter__(self) -> None:
        self._lock.acquire()
        now = time.monotonic()
        self._idle += now - self._turned
        self._turned = now

    def __exit__(self, *_: object) -> None:
        now = time.monotonic()
        self._busy += now - self._turned
        self._turned = now
        self._lock.release()

    def read(self) -> dict[str, float]:
        """`busy_seconds` and `idle_seconds` since the last reading, up to when the lock last changed hands."""
        busy, self._busy = self._busy, 0.0
        idle, self._idle = self._idle, 0.0
        return {"busy_seconds": busy, "idle_seconds": idle}
