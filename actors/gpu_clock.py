"""The lock of an actor's GPU, which knows for how long it was held: how busy the card is, seen from its actor."""

from __future__ import annotations

import threading
import time


class GpuClock:
    """A lock for `with`, from when the model is loaded. Threads of one process share it."""

    def __init__(self) -> None:
        self._lock, self._sums = threading.Lock(), threading.Lock()
        self._turned = time.monotonic()
        self._busy = self._idle = 0.0

    def __enter__(self) -> None:
        self._lock.acquire()
        now = time.monotonic()
        with self._sums:
            self._idle += now - self._turned
        self._turned = now

    def __exit__(self, *_: object) -> None:
        now = time.monotonic()
        with self._sums:
            self._busy += now - self._turned
        self._turned = now
        self._lock.release()

    def read(self) -> dict[str, float]:
        """`busy_seconds` and `idle_seconds` since the last reading, up to when the lock last changed hands."""
        # Not under the lock of the GPU: that would wait for a whole chunk of the other thread.
        with self._sums:
            read = {"busy_seconds": self._busy, "idle_seconds": self._idle}
            self._busy = self._idle = 0.0
        return read
