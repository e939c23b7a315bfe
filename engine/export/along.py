"""Copies that a run keeps beside its Parquet (`output.format`), and its real images (`output.include_real`).

Each is an export like any other, below the output by its format's name: a function of committed shards alone. So the
log says what is in it, the run's own files and digests do not know of it, and it may be asked for before, within or
after a run. It follows the log; once `expand` returns it is level with it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from diffii.dataset import log
from engine.export.export import WORKERS, Export, Exported
from engine.export.parts import PartOrder, make_part
from engine.export.settings import settings_of
from engine.formats.parquet import Parquet
from engine.run import Run

PartMaker = Callable[[PartOrder], "Future[dict[str, Any]]"]
_GROWN = 1.1
"""An index is written anew when the log has grown by so much since: it names all parts, and a run has many."""


class Along:
    """The copies of one run. `begin` was called for the run; `make` makes a part somewhere."""

    def __init__(self, run: Run, make: PartMaker) -> None:
        output = run.config.output
        self._run, self._make = run, make
        self._copies = [
            Export(run, f"{run.storage.url}/{name}", settings_of(output, name, include_real=output.include_real))
            for name in output.format
            if name != Parquet.name
        ]
        self._pending: list[Future[dict[str, Any]]] = []
        self._indexed = 0

    def begin(self) -> None:
        """Write the real images, which a card may name from now on, and ask for what the log has committed already."""
        if self._run.config.output.include_real:
            beside = settings_of(self._run.config.output, Parquet.name, include_real=True)
            orders = Export(self._run, self._run.storage.url, beside).missing(origins=("real",))
            for future in [self._make(order) for order in orders]:
                future.result()
        for copy in self._copies:
            copy.begin()
            self._pending += [self._make(order) for order in copy.missing()]

    def committed(self, entry: log.CommitEntry) -> None:
        """The log has grown by this entry."""
        if entry.shard is None or not self._copies:
            return
        shards = len(self._run.history.shards)
        self._pending = [future for future in self._pending if not future.done() or future.exception()]
        self._pending += [self._make(copy.order(shards - 1)) for copy in self._copies]
        if shards >= _GROWN * self._indexed:
            self._indexed = shards
            for copy in self._copies:
                copy.finish()

    def finish(self) -> list[Exported]:
        """Wait for what was asked for, and write the indexes. Raises what a part's maker raised."""
        for future in self._pending:
            future.result()
        self._pending = []
        return [copy.finish() for copy in self._copies]


def catch_up(run: Run) -> list[Exported]:
    """What the copies of a run lack, made in this process: for a run that has nothing else to do."""
    with ThreadPoolExecutor(WORKERS) as pool:
        along = Along(run, lambda order: pool.submit(make_part, order))
        along.begin()
        return along.finish()
