"""What happens in a run, as lines of JSON for a log collector: one object a line, in the order in which it happened.

Every line has `time` (UTC, to the millisecond), `run` (`engine.run_id`) and `event`; `EVENTS` says what else. Progress
is for people and may change; these names are for programs.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from diffii.dataset.log import CommitEntry, WaveEntry
from diffii.errors import DiffiiError, OutputError
from engine.counters import CHUNK_STAGES
from engine.progress import Actors, Progress
from engine.run import Run

EVENTS: dict[str, tuple[str, ...]] = {
    "began": ("output", "source", "version"),
    "stage": ("stage", "wanted", "done", "unit"),
    "actors": ("stage", "wanted", "here", "ready", "waiting_seconds"),
    "chunk": ("wave", "chunk", "rows", "lost", "seconds"),
    "rejected": ("wave", "chunk", "reason", "sample_ids"),
    "poisoned": ("wave", "chunk", "reason", "sample_ids"),
    "commit": ("wave", "chunk", "last_chunk", "rows", "kept", "rejected", "poisoned", "shard", "version"),
    "note": ("text",),
    "ended": ("how", "error"),
}
"""Event -> what a line of it has besides. `how` is `done`, `stopped` (Ctrl-C) or `failed`, with the `error` in words;
`version` is the log's newest; `seconds` has those of each stage of the chunk; `shard` is empty where no row was kept;
`waiting_seconds` is how long no machine has had room for an actor."""


class Events:
    """Lines to a file; to nowhere without one. Safe to use from several threads."""

    def __init__(self, run: str = "", file: TextIO | None = None) -> None:
        self._run, self._file, self._lock = run, file, threading.Lock()

    def say(self, event: str, **fields: Any) -> None:
        if self._file is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps({"time": now, "run": self._run, "event": event, **fields}, ensure_ascii=False)
        # A log that cannot be written is not worth ending a run for.
        with self._lock, contextlib.suppress(OSError):
            self._file.write(line + "\n")
            self._file.flush()

    def chunk(self, wave: WaveEntry, result: dict[str, Any]) -> None:
        """A chunk is made and staged; `result` is what its maker tells of it."""
        known = {stage: result.get(f"{stage}_seconds") for stage in CHUNK_STAGES}
        seconds = {stage: round(value, 3) for stage, value in known.items() if value is not None}
        told = {key: result[key] for key in ("chunk", "rows", "lost")}
        self.say("chunk", wave=wave.wave, **told, seconds=seconds)

    def committed(self, run: Run, entry: CommitEntry) -> None:
        """The log has a commit, as its newest entry; first come the rows that it does not keep, by name."""
        if self._file is None:
            return
        for outcome, rows in sorted(entry.lost.items()):
            for (chunk, reason), sample_ids in _by_chunk(run, entry, rows).items():
                self.say(outcome, wave=entry.wave, chunk=chunk, reason=reason, sample_ids=sample_ids)
        self.say(
            "commit",
            wave=entry.wave,
            chunk=entry.first,
            last_chunk=entry.last,
            rows=entry.rows,
            kept=entry.kept,
            rejected=entry.count("rejected"),
            poisoned=entry.count("poisoned"),
            shard=entry.shard.name if entry.shard else "",
            version=run.history.version,
        )


def _by_chunk(run: Run, entry: CommitEntry, rows: dict[str, str]) -> dict[tuple[int, str], list[str]]:
    """(chunk, reason) -> sample ids of some rows of an entry, which are numbered from its first."""
    size, wave = run.config.commit.chunk_size, run.waves[entry.wave]
    found: dict[tuple[int, str], list[str]] = defaultdict(list)
    for number, reason in sorted((int(row), why) for row, why in rows.items()):
        row = entry.first * size + number
        (planned,) = run.plan_of(wave).rows(wave, row, row + 1)
        found[row // size, reason].append(planned.sample_id)
    return found


class Told:
    """Progress that also goes to the log; implements `engine.progress.Progress`."""

    def __init__(self, progress: Progress, events: Events) -> None:
        self._progress, self._events = progress, events
        self.advance, self.committed = progress.advance, progress.committed
        self._stage, self._last = "", ()

    def stage(self, name: str, total: int, done: int, unit: str = "images") -> None:
        self._stage, self._last = name, ()
        self._events.say("stage", stage=name, wanted=total, done=done, unit=unit)
        self._progress.stage(name, total, done, unit)

    def actors(self, actors: Actors) -> None:
        # Which of them is busy changes every second.
        state = (actors.wanted, actors.here, actors.ready, actors.waiting)
        if state != self._last:
            self._last = state
            waiting = round(actors.alone, 1) if actors.waiting else 0.0
            counts = {"wanted": actors.wanted, "here": actors.here, "ready": actors.ready}
            self._events.say("actors", stage=self._stage, **counts, waiting_seconds=waiting)
        self._progress.actors(actors)

    def note(self, text: str) -> None:
        self._events.say("note", text=text)
        self._progress.note(text)


@contextlib.contextmanager
def written(run: str, to: str) -> Iterator[Events]:
    """Lines of a run to a file, after what it holds; `-` is standard error, and nothing is logged without a name.

    How the block ends is the last line. Raises OutputError when the file cannot be opened.
    """
    with _opened(to) as file:
        events = Events(run, file)
        try:
            yield events
        except DiffiiError as error:
            events.say("ended", how="failed", error=str(error))
            raise
        except KeyboardInterrupt:
            events.say("ended", how="stopped", error="")
            raise
        except BaseException as error:
            events.say("ended", how="failed", error=f"{type(error).__name__}: {error}")
            raise
        events.say("ended", how="done", error="")


def _opened(to: str) -> contextlib.AbstractContextManager[TextIO | None]:
    if to in ("", "-"):
        return contextlib.nullcontext(sys.stderr if to else None)
    try:
        return Path(to).open("a", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"--log-json: {to} cannot be written: {error.strerror or error}") from error
