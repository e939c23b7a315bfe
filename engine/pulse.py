"""What a driver says of itself in its heartbeat: the stage, how fast it gets on, and how many actors it has.

So a run can be followed by whoever reads its bucket. It costs no call of storage: the heartbeat is written anyhow.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from diffii.dataset.driver import Doing
from engine.progress import Actors, Progress

WINDOW_SECONDS = 300.0
"""Speed is that of the last minutes: chunks come in bursts, and actors come and go."""


class Pulse:
    """Progress that remembers how it stands; implements `engine.progress.Progress`. `doing` may be asked anywhere."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.committed, self.note = progress.committed, progress.note
        self._lock = threading.Lock()
        self._stage, self._unit, self._wanted, self._done = "", "images", 0, 0
        self._seen: deque[tuple[float, int]] = deque()
        """(time, done) when the stage began and after each step of it, as far back as the window goes."""
        self._actors: Actors | None = None

    def stage(self, name: str, total: int, done: int, unit: str = "images") -> None:
        with self._lock:
            self._stage, self._unit, self._wanted, self._done = name, unit, total, done
            self._seen = deque([(time.monotonic(), done)])
            self._actors = None
        self._progress.stage(name, total, done, unit)

    def advance(self, images: int, lost: int = 0) -> None:
        with self._lock:
            self._done += images
            self._seen.append((time.monotonic(), self._done))
        self._progress.advance(images, lost)

    def actors(self, actors: Actors) -> None:
        with self._lock:
            self._actors = actors
        self._progress.actors(actors)

    def doing(self) -> Doing:
        with self._lock:
            actors = self._actors or Actors(wanted=0)
            return Doing(
                stage=self._stage,
                unit=self._unit,
                wanted=self._wanted,
                done=self._done,
                per_second=self._speed(),
                actors_wanted=actors.wanted,
                actors_held=actors.here,
                actors_busy=actors.busy,
                waiting_seconds=actors.alone if actors.waiting else 0.0,
            )

    def _speed(self) -> float:
        now = time.monotonic()
        # The last step before the window begins it.
        while len(self._seen) > 1 and self._seen[1][0] <= now - WINDOW_SECONDS:
            self._seen.popleft()
        if not self._seen:
            return 0.0
        since, done = self._seen[0]
        seconds = min(now - since, WINDOW_SECONDS)
        return (self._done - done) / seconds if seconds > 0 else 0.0
