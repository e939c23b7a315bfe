"""What a lost node costs: which chunks were begun there and made again elsewhere, read off the journals of a run."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass

from diffii.dataset import layout
from diffii.dataset.storage import Storage


@dataclass
class Try:
    """A process that had begun a chunk in the model, from when to when it was seen with it (seconds of this clock)."""

    chunk: str
    node: str
    began: float
    last: float


@dataclass
class Loss:
    """`seconds` is the time that the model had spent on `chunks` that were begun again, up to the node's end."""

    what: str
    chunks: int = 0
    seconds: float = 0.0
    until_work: float | None = None
    """Seconds until the node that came instead had begun a chunk."""


class Losses(threading.Thread):
    """Looks at the journals of an output while a run is at work."""

    def __init__(self, url: str) -> None:
        super().__init__(name="losses", daemon=True)
        self._url, self._over, self._lock = url, threading.Event(), threading.Lock()
        self._tries: dict[tuple[str, str], Try] = {}
        self._ends: list[tuple[str, str, str, float]] = []
        self._looked = self.now()
        """When the last look began that has ended."""
        self.error: BaseException | None = None

    def __enter__(self) -> Losses:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    @staticmethod
    def now() -> float:
        """This clock."""
        return time.monotonic()

    def ended(self, what: str, node: str, instead: str, at: float) -> None:
        """A node (its id) ended then; `instead` is the id of the one that is to take its place."""
        self._ends.append((what, node, instead, at))

    def works(self, node: str) -> bool:
        """Whether an actor there has been seen with a chunk in its model."""
        with self._lock:
            return any(found.node == node for found in self._tries.values())

    def idle(self, node: str, seconds: float) -> bool:
        """Whether no actor there has been seen with a chunk for so long; as long as nobody looked is no proof."""
        with self._lock:
            return all(self._looked - found.last > seconds for found in self._tries.values() if found.node == node)

    def told(self) -> list[Loss]:
        """What each end cost; call it after the run."""
        return [self._loss(*end) for end in self._ends]

    def _loss(self, what: str, node: str, instead: str, at: float) -> Loss:
        tries = list(self._tries.values())
        loss, firsts = Loss(what), [found.began for found in tries if found.node == instead and found.began > at]
        loss.until_work = round(min(firsts) - at, 1) if firsts else None
        for lost in (found for found in tries if found.node == node):
            if any(other.chunk == lost.chunk and other.began > max(at, lost.began) for other in tries):
                loss.chunks += 1
                loss.seconds = round(loss.seconds + max(0.0, min(at, lost.last) - lost.began), 1)
        return loss

    def run(self) -> None:
        storage = Storage(self._url)
        while not self._over.wait(0.2):
            try:
                self._look(storage)
            except BaseException as error:  # noqa: BLE001
                # Raised in a thread, it would end the looking and fail nothing.
                self.error = error
                return

    def _look(self, storage: Storage) -> None:
        began = self.now()
        for name, _ in storage.find(layout.ATTEMPTS):
            # Read each time: the next journal of a chunk has the names of the one before.
            data = storage.read_or_none(name) if "/wave-" in name else None
            if data is None:
                continue
            entry, now = json.loads(data), self.now()
            chunk, process = name.rpartition("-")[0], entry["process"]
            with self._lock:
                self._tries.setdefault((chunk, process), Try(chunk, entry["node"], now, now)).last = now
        with self._lock:
            self._looked = began
