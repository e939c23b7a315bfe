"""An actor's desk: which tasks lie on it and how they get on, posted to the stage's board every few seconds.

Posting never waits and never fails a task. Without a board (a test, `replay`) a desk does nothing.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import ParamSpec, TypeVar

import psutil
import ray
from ray.exceptions import RayError

from actors.attempts import Process
from actors.board import COMPUTING, POST_SECONDS, READING, STORAGE_PHASES, Answer, Holding, Post, Watched
from actors.failures import HANGS
from actors.spot import Notice, heed_notices
from actors.watchdog import Watchdog
from diffii.errors import DiffiiError, ModelError, OutputError

ANSWER_SECONDS = 10.0
"""How long the board is waited for: it tells about rare things, and a task can do without."""
LAST_WORDS_SECONDS = 2.0
"""The same where the process is about to end, and the journal is still to be written."""

P = ParamSpec("P")
R = TypeVar("R")


class Hold:
    """A task in hand: `at` says what is done with it now, `moved` that it gets on."""

    def __init__(self, answer: Answer) -> None:
        self.excused = answer.excused
        self.phase, self.moves = READING, 0
        self._since, self._seconds = time.monotonic(), dict[str, float]()

    def at(self, phase: str) -> None:
        now = time.monotonic()
        self._seconds[self.phase] = self._seconds.get(self.phase, 0.0) + now - self._since
        self._since, self.phase = now, phase
        self.moves += 1

    def moved(self) -> None:
        self.moves += 1

    def seconds(self) -> dict[str, float]:
        """Seconds spent so far, per phase, under names such as `reading_seconds`."""
        self.at(self.phase)
        return {f"{phase}_seconds": seconds for phase, seconds in self._seconds.items()}


class Desk:
    """One per process; several tasks may lie on it at once."""

    def __init__(self, spec: Watched, process: Process, place: str = "") -> None:
        """`place` is what the process that follows this one is known by too; a Ray actor has one of its own."""
        self._board, self._url, self._limit = spec.board, spec.output_url, spec.stall_timeout
        self._watchdog: Watchdog | None = None
        self._ready = False
        self._holds: dict[str, Hold] = {}
        self._words = self._notice = ""
        self._numbers = itertools.count()
        if self._board is not None:
            context = ray.get_runtime_context()
            self._me = Post(
                actor=place or context.get_actor_id() or "",
                process=process.name,
                node=process.node,
                pid=os.getpid(),
                born=psutil.Process().create_time(),
            )
            threading.Thread(target=self._keep_posting, name="desk", daemon=True).start()
            if spec.spot_notices:
                heed_notices(self._noticed)

    def open(self, watchdog: Watchdog | None = None) -> None:
        """The model is loaded; `watchdog`, if there is one, counts its answers and knows how long one may take."""
        self._watchdog, self._ready = watchdog, True

    def moving(self, call: Callable[P, R]) -> Callable[P, R]:
        """`call`, after which all that is being computed has got on: the model, where no watchdog counts."""

        @functools.wraps(call)
        def with_move(*args: P.args, **kwargs: P.kwargs) -> R:
            result = call(*args, **kwargs)
            for hold in list(self._holds.values()):
                if hold.phase == COMPUTING:
                    hold.moved()
            return result

        return with_move

    @contextlib.contextmanager
    def holding(self, subject: str) -> Iterator[Hold]:
        """Take a task in hand. Raises OutputError or ModelError when too many actors hung over it."""
        answer = self._ask(subject)
        if len(answer.hangs) >= HANGS:
            raise _given_up(self._url, subject, answer.hangs)
        hold = Hold(answer)
        self._holds[subject] = hold
        try:
            yield hold
        finally:
            del self._holds[subject]

    def last_words(self, words: str) -> None:
        """Say why this process ends, and wait until it is heard, though not for long."""
        self._words = words
        if self._board is not None:
            with contextlib.suppress(RayError):
                ray.get(self._board.post.remote(self._post()), timeout=LAST_WORDS_SECONDS)

    def _noticed(self, notice: Notice) -> None:
        self._notice = str(notice)

    def _ask(self, subject: str) -> Answer:
        if self._board is None:
            return Answer()
        try:
            return ray.get(self._board.ask.remote(subject), timeout=ANSWER_SECONDS)
        except RayError:
            return Answer()

    def _post(self) -> Post:
        watchdog = self._watchdog
        answers = watchdog.answers if watchdog else 0
        holdings = tuple(
            Holding(subject, hold.phase, hold.moves + (answers if hold.phase == COMPUTING else 0))
            for subject, hold in list(self._holds.items())
        )
        return replace(
            self._me,
            limit=watchdog.limit if watchdog else self._limit,
            ready=self._ready,
            holdings=holdings,
            words=self._words,
            notice=self._notice,
            number=next(self._numbers),
        )

    def _keep_posting(self) -> None:
        while True:
            with contextlib.suppress(RayError):
                self._board.post.options(num_returns=0).remote(self._post())
            time.sleep(POST_SECONDS)


def _given_up(url: str, subject: str, phases: tuple[str, ...]) -> DiffiiError:
    where = "" if COMPUTING in phases else "outside of the model "
    said = f"{len(phases)} actors hung over {subject}, one after another, {where}({', '.join(phases)})"
    if set(phases) <= STORAGE_PHASES:
        return OutputError(
            f"{url}: {said}: storage does not answer there; nothing is lost: mend it and run the same command again"
        )
    return ModelError(
        f"backbone: {said}; that is not the images but the machine: look at the host's memory, its processor's load "
        "and its drivers, then run the same command again"
    )
