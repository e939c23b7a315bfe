"""The stall clock of an actor: it ends a process whose model no longer answers.

It runs only inside `watching`, and every answer of the model (`beat`) sets it back; waiting for the GPU's lock or for
storage is outside. So the time allowed is that of one model call, on a slow CPU too, not that of a micro-batch. (On
CUDA a call answers before it is computed, and the last one waits for all: there a micro-batch has that time, which is
a minute on a slow card.)
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

SLACK = 4.0
"""A call may take this many times the longest one so far: a CPU that swaps or is shared is slow, not hung."""
GRACE_SECONDS = 60.0
"""A call that hangs without giving up Python's lock stops this module's thread too. A C thread of `faulthandler`,
which needs no lock, ends the process this much later; it cannot say why, so that death counts as a silent one."""

P = ParamSpec("P")
R = TypeVar("R")


class Watchdog:
    """Calls `on_stall(seconds)` from a thread of its own; what is called must end the process."""

    def __init__(self, timeout: float, on_stall: Callable[[float], None]) -> None:
        self._timeout, self._on_stall = timeout, on_stall
        self.answers = 0
        """Answers of the model so far: what tells from outside that it gets on."""
        self._since: float | None = None
        self._longest = 0.0
        self._armed = 0.0
        self._wake = threading.Event()
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    @property
    def limit(self) -> float:
        """Seconds that a model call may take."""
        return max(self._timeout, SLACK * self._longest)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch one micro-batch. One at a time: the caller holds the GPU's lock."""
        self._start()
        self._wake.set()
        try:
            yield
            self.beat()
        finally:
            self._since = None
            self._armed = 0.0
            self._wake.clear()
            faulthandler.cancel_dump_traceback_later()

    def beat(self) -> None:
        """The model has answered."""
        self.answers += 1
        since = self._since
        if since is not None:
            self._longest = max(self._longest, time.monotonic() - since)
            self._start()

    def beating(self, call: Callable[P, R]) -> Callable[P, R]:
        """`call`, with a beat after it."""

        @functools.wraps(call)
        def with_beat(*args: P.args, **kwargs: P.kwargs) -> R:
            result = call(*args, **kwargs)
            self.beat()
            return result

        return with_beat

    def _start(self) -> None:
        self._since = now = time.monotonic()
        if now - self._armed > 1.0 and sys.__stderr__ is not None:
            # Each arming starts a thread: 0.3 ms, which a small model's calls would feel.
            self._armed = now
            faulthandler.dump_traceback_later(self.limit + GRACE_SECONDS, exit=True, file=sys.__stderr__)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            time.sleep(min(1.0, self._timeout / 10))
            since, limit = self._since, self.limit
            if since is not None and time.monotonic() - since > limit:
                self._since = None
                self._on_stall(limit)
