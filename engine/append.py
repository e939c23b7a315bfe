"""Writing the log: the one thing that a second driver can be told from the first by."""

from __future__ import annotations

from diffii.dataset import checkpoints, layout, log
from diffii.dataset.history import History
from diffii.dataset.storage import Storage
from diffii.errors import FencedError


class LogWriter:
    """Appends to the log of one output and keeps what it adds up to. `writer` names this driver, once per process."""

    def __init__(self, storage: Storage, history: History, writer: str) -> None:
        self.history = history
        self._storage, self._writer = storage, writer

    def append(self, entry: log.Entry) -> None:
        """Write the next entry, by exclusive creation of its file (law 2).

        Raises FencedError when another driver has written that number: from there on it owns the run.
        """
        version = self.history.version + 1
        name, data = layout.log_entry(version), log.encode(entry, self._writer)
        # Storage may take a file and lose the answer; the second try then finds the file there, and it is ours.
        if not self._storage.put_once(name, data) and self._storage.read(name) != data:
            raise FencedError(
                f"{self._storage.url}: another process wrote log entry {version} first and goes on with this run; "
                "this one stops and has lost nothing"
            )
        self.history.add(entry)
        checkpoints.write_due(self._storage, version)

    def mend(self) -> None:
        """Write the checkpoints that a driver which died did not come to."""
        checkpoints.write_missing(self._storage, self.history.version, self.history.in_checkpoints)
