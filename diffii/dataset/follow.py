"""`diffii.follow`: the rows of a data set as they are committed, each once, over restarts of writer and reader.

Rows are never changed nor taken back, so that a reader's place is one number: how many it has had, in commit order.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from diffii.dataset import layout
from diffii.dataset.checkpoints import read_entries
from diffii.dataset.driver import Watch
from diffii.dataset.history import History, newest_version, read_log
from diffii.dataset.snapshot import Snapshot
from diffii.dataset.storage import Storage
from diffii.errors import OutputError

_FIRST_PAUSE = 1.0
"""Seconds between the first looks; each next one lets twice as long pass."""

Until = Literal["complete", "stopped", "forever"]


class Follower:
    """Committed rows in commit order, as dicts (all columns; `image` is a struct of bytes and path); see `follow`.

    Iterating again goes on where the last loop ended. It may end with rows still to come: `complete` tells.
    """

    def __init__(self, url: str, from_version: int | None, until: Until, timeout: float | None, poll: float) -> None:
        if until not in ("complete", "stopped", "forever"):
            raise ValueError(f"until is 'complete', 'stopped' or 'forever', got {until!r}")
        self._storage = Storage(url)
        self._until, self._timeout, self._poll = until, timeout, poll
        self._go_to(from_version)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for snapshot in self._growing():
            while self._given < len(snapshot):
                row = snapshot.row(self._given)
                self._given += 1
                yield row

    def batches(self) -> Iterator[Snapshot]:
        """All rows that are new since the last look, as one Snapshot, once there are any."""
        for snapshot in self._growing():
            rows, self._given = np.arange(self._given, len(snapshot)), len(snapshot)
            yield Snapshot(self._storage, self._history, rows)

    @property
    def version(self) -> int:
        """A log version whose rows have all been given, the newest known; -1 before the first."""
        return self._history.version if self._given == self._history.kept else self._settled

    @property
    def complete(self) -> bool:
        """Whether all rows were given of a data set that had, when it was last looked at, all that it was to have."""
        return self._history.complete and self._given == self._history.kept

    def state_dict(self) -> dict[str, Any]:
        """Where to go on: after the row, or the batch, that the loop was last given."""
        known = {"known": self._history.version, "data": self._history.shards.digest}
        return {"version": self.version, "rows": self._given, **known}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there. Raises OutputError when this is not the data set that the state is of."""
        self._go_to(state["known"] if state["known"] >= 0 else None)
        if self._history.shards.digest != state["data"]:
            raise OutputError(
                f"{self._storage.url} is not the data set that this state is of; follow it from its start"
            )
        self._given, self._settled = state["rows"], state["version"]

    def _growing(self) -> Iterator[Snapshot]:
        """The data set whenever it has rows that were not given yet, until there is nothing more to wait for."""
        watch = Watch(self._storage)
        pause, since = _FIRST_PAUSE, time.monotonic()
        while True:
            # Before the log is looked at, so that what a writer did last is still seen.
            stopped = self._until == "stopped" and watch.gone()
            self._read_on()
            if self._given < self._history.kept:
                yield Snapshot(self._storage, self._history)
                pause, since = _FIRST_PAUSE, time.monotonic()
                continue
            left = float("inf") if self._timeout is None else since + self._timeout - time.monotonic()
            if stopped or left <= 0 or (self._history.complete and self._until != "forever"):
                return
            # Many readers of one bucket are not to look all at once.
            time.sleep(min(left, self._poll, pause) * random.uniform(0.8, 1.0))
            pause *= 2

    def _read_on(self) -> None:
        newest, known = newest_version(self._storage), self._history.version
        if newest < known:
            raise OutputError(f"{self._storage.url}: log entry {known} was there and is gone; restore it from a copy")
        if newest == known:
            return
        self._settled = self.version
        if newest - known > layout.LOG_PAGE:
            self._history = read_log(self._storage, newest)
        else:
            for entry in read_entries(self._storage, range(known + 1, newest + 1)):
                self._history.add(entry)

    def _go_to(self, version: int | None) -> None:
        self._history = History() if version is None else read_log(self._storage, version)
        self._given, self._settled = self._history.kept, self._history.version


def follow(
    url: str,
    from_version: int | None = None,
    *,
    until: Until = "complete",
    timeout: float | None = None,
    poll: float = 30.0,
) -> Follower:
    """The rows that a data set gains after `from_version`, or all of them, as they are committed: each exactly once.

    Save `Follower.state_dict()` with whatever was made of the rows: a new follower that loads it goes on after them.
    `for snapshot in diffii.follow(url).batches()` gives what is new as Snapshots instead of row by row.

    It waits while nothing new comes, a data set that is not there yet included: until the data set is `complete`; until
    then or until nobody writes any more (`stopped`; a writer that was killed is missed after 45 seconds); or `forever`,
    since a complete data set may grow again. With a `timeout` it waits no longer than so many seconds for the next row;
    0 gives what is there. It looks every second, and ever more seldom, down to every `poll` seconds, while nothing
    comes; a look is two listings. Raises OutputError when the log is damaged or has no such version, or storage fails.
    """
    return Follower(url, from_version, until, timeout, poll)
