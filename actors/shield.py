"""The shield around the model: one result or one error per row, whatever a row does to its batch or its process.

Every call of the model has exactly `micro_batch` rows, short ones padded by repetition, so that a row has the same
bits whichever mates it is tried with (law 5). What is done about each failure stands in `actors.failures`.
"""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch

from actors import preemption
from actors.attempts import DEVICE_LOST, OUT_OF_MEMORY, PREEMPTED, STALLED, TOO_LARGE, Journal
from actors.failures import NoRoom, RowFault, with_room
from actors.watchdog import Watchdog

T = TypeVar("T")


class Shield:
    """One per actor; one task at a time (its caller holds the GPU's lock).

    A model is called with the row numbers of a full batch and gives their results, in that order.
    """

    def __init__(
        self,
        micro_batch: int,
        device: torch.device,
        stall_timeout: float,
        last_words: Callable[[str], None],
        make_smaller: Callable[[], bool] = lambda: False,
    ) -> None:
        """`make_smaller` sees to it that the next process takes fewer rows, if that may be."""
        self._micro_batch, self._device, self._last_words = micro_batch, device, last_words
        self._make_smaller = make_smaller
        self._journal: Journal | None = None
        self.watchdog = Watchdog(stall_timeout, self._stalled)
        preemption.on_sigterm(lambda: self._say(PREEMPTED))

    def make(
        self, journal: Journal, good: Sequence[bool], model: Callable[[list[int]], Iterable[T]]
    ) -> Iterator[tuple[int, T | Exception]]:
        """The outcome of each row that is `good` to be tried, in the order in which the journal has them tried."""
        self._journal = journal
        try:
            for group in journal.groups(len(good), self._micro_batch):
                rows = [row for row in group if good[row]]
                if rows:
                    journal.begin(rows)
                for start in range(0, len(rows), self._micro_batch):
                    yield from self._bisect(rows[start : start + self._micro_batch], model).items()
            journal.passed()
        finally:
            self._journal = None

    def beside(self, journal: Journal, call: Callable[[], T]) -> T:
        """What `call` gives that uses the device when the journal's rows are through the model, and blames none.

        Without memory once more with the cache freed; after that, or without its CUDA context, this process ends.
        """
        try:
            return with_room(call)
        except NoRoom as full:
            kind, cause = self._full(), str(full)

            def say() -> None:
                self._last_words(cause)
                journal.end(kind, cause)

            preemption.leave(say)
        except RuntimeError as error:
            preemption.leave_if_lost(self._device, error, self._last_words)
            raise

    def _full(self) -> str:
        return TOO_LARGE if self._make_smaller() else OUT_OF_MEMORY

    def _bisect(self, rows: list[int], model: Callable[[list[int]], Iterable[T]]) -> dict[int, T | Exception]:
        """Up to a micro-batch of rows; one that fails is taken apart in halves."""
        try:
            results = self._with_room(rows + rows[-1:] * (self._micro_batch - len(rows)), model)
            return dict(zip(rows, results, strict=False))
        except RowFault as error:
            preemption.leave_if_lost(self._device, error, lambda cause: self._say(DEVICE_LOST, cause))
            if len(rows) == 1:
                # Without its frames, which would keep the batch's tensors on the card until the chunk is staged.
                return {rows[0]: error.with_traceback(None)}
        half = (len(rows) + 1) // 2
        return self._bisect(rows[:half], model) | self._bisect(rows[half:], model)

    def _with_room(self, batch: list[int], model: Callable[[list[int]], Iterable[T]]) -> Iterable[T]:
        """Call the model; where there is no memory for it this actor makes room for another."""

        def watched() -> Iterable[T]:
            with self.watchdog.watching():
                return model(batch)

        try:
            return with_room(watched)
        except NoRoom as full:
            cause = str(full)
            preemption.leave(lambda: self._say(self._full(), cause))

    def _stalled(self, seconds: float) -> None:
        if sys.__stderr__ is not None:
            faulthandler.dump_traceback(sys.__stderr__)
        preemption.leave(lambda: self._say(STALLED, f"the model did not answer for {seconds:.0f} s"))

    def _say(self, kind: str, cause: str = "") -> None:
        self._last_words(cause or kind)
        journal = self._journal
        if journal is not None:
            journal.end(kind, cause)
