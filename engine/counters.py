"""What a run counts while it works, in Prometheus' terms: images, chunks, seconds of actors and stages, storage calls.

Plain numbers in a registry of their own: whoever drives a run reads them here without a server (`value`, `text`), and
`engine.metrics` hands the same numbers to Ray's endpoint and to a file. They count one driver's run, not the data set:
what that holds stands in the log.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from actors.board import COMPUTING, ENCODING, READING, STAGING, WAITING
from diffii.dataset.log import CommitEntry
from diffii.dataset.patience import Tally
from diffii.image_checks import CONSTANT, LOW_DETAIL, NON_FINITE, SATURATED
from engine.near_copies import NEAR_COPY, NEAR_REAL
from engine.progress import Actors, Progress

INVERT, GENERATE = "invert", "generate"
STAGES = ("caption", "learn", INVERT, GENERATE)
"""Of a run, as its progress calls them; there may be others, such as copies in further formats."""
CHUNK_STAGES = (READING, WAITING, COMPUTING, ENCODING, STAGING)
ACTOR_STATES = ("wanted", "here", "ready", "busy")
DECIDE, PACK, APPEND = "deciding", "packing", "appending"
"""Stages of the committer. Those of a chunk in its actor are called as `actors.board` calls its phases."""

# Otherwise each series has a second one that says when it began.
disable_created_metrics()

BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Seconds: from one append to a chunk of 512 px images on an old card."""


class Counters:
    """The counters of one run. Safe to use from several threads."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"diffii_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"diffii_{name}", text, labels, registry=registry)

        self.images = counter("images", "Images made, whatever becomes of them")
        self.chunks = counter("chunks", "Chunks made and staged")
        self.chunks_waiting = gauge("chunks_waiting", "Staged chunks that wait for the head of the line")
        self.kept = counter("kept", "Rows committed as kept")
        self.rejected = counter("rejected", "Rows committed as rejected", "reason")
        self.poisoned = counter("poisoned", "Rows committed as poisoned")
        self.published_bytes = counter("published_bytes", "Bytes of shards committed")
        self.log_version = gauge("log_version", "The log's newest version")
        self.stage_wanted = gauge("stage_wanted", "Images (or other units) of a stage, of the newest wave", "stage")
        self.stage_done = gauge("stage_done", "How many of them are made, by this run or an earlier one", "stage")
        self.actors = gauge("actors", "Actors of the stage that runs", "state")
        self.capacity_wait_seconds = gauge(
            "capacity_wait_seconds", "For how long no machine has had room for an actor; 0 while there is one"
        )
        self.unet_rows = counter("unet_rows", "Rows that U-Nets computed, padding and repeated tries included", "stage")
        self.actor_seconds = counter(
            "actor_seconds", "Seconds in which the generators' GPUs had a chunk (busy) or had none (idle)", "state"
        )
        self.busy_share = gauge("busy_share", "Share of the generators' time in which their GPUs had a chunk, so far")
        self.stage_seconds = Histogram(
            "diffii_stage_seconds", "Seconds a stage took, per call", ["stage"], buckets=BUCKETS, registry=registry
        )
        self.storage_calls = counter("storage_calls", "Calls of storage", "by")
        self.storage_retries = counter("storage_retries", "Calls of storage made again after a failure", "by")
        self._begin()

    def _begin(self) -> None:
        """All that can happen stands there from the start, as 0: what appears with its first event has no rate."""
        for reason in (NON_FINITE, CONSTANT, SATURATED, LOW_DETAIL, NEAR_COPY, NEAR_REAL):
            self.rejected.labels(reason)
        for state in ACTOR_STATES:
            self.actors.labels(state)
        for state in ("busy", "idle"):
            self.actor_seconds.labels(state)
        for stage in (*CHUNK_STAGES, DECIDE, PACK, APPEND):
            self.stage_seconds.labels(stage)
        for stage in STAGES:
            self.stage_wanted.labels(stage)
            self.stage_done.labels(stage)
        for stage in (INVERT, GENERATE):
            self.unet_rows.labels(stage)
        for who in ("driver", "actors", "packers"):
            self.storage_calls.labels(who)
            self.storage_retries.labels(who)

    def value(self, name: str, **labels: str) -> float:
        """One number, by the name that the exposition gives it (`diffii_images_total`); 0 when nothing was counted."""
        return self.registry.get_sample_value(name, labels) or 0.0

    def text(self) -> str:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry).decode()

    @property
    def busy(self) -> float:
        """The share of the actors' time in which their GPUs had a chunk, from their first to their last; 1 before."""
        busy, idle = (self.value("diffii_actor_seconds_total", state=state) for state in ("busy", "idle"))
        return busy / (busy + idle) if busy else 1.0

    # -- what the engine tells --------------------------------------------------------------------------------------

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.took(stage, time.perf_counter() - began)

    def took(self, stage: str, seconds: float) -> None:
        self.stage_seconds.labels(stage).observe(seconds)

    def made(self, result: Mapping[str, Any]) -> None:
        """A maker has told of a chunk: `rows`, and if it measured them its seconds and its calls of storage.

        Those are `busy_seconds` and `idle_seconds` of the GPU, `<stage>_seconds` of each stage, `unet_rows`,
        `storage_calls` and `storage_retries`.
        """
        self.chunks.inc()
        self.images.inc(result["rows"])
        for key, seconds in result.items():
            name, _, unit = key.rpartition("_")
            if unit == "seconds" and seconds is not None:
                if name in ("busy", "idle"):
                    self.actor_seconds.labels(name).inc(seconds)
                else:
                    self.took(name, seconds)
        self.computed(GENERATE, result.get("unet_rows", 0))
        self.busy_share.set(self.busy)
        self.stored("actors", Tally(result.get("storage_calls", 0), result.get("storage_retries", 0)))

    def committed(self, entry: CommitEntry, version: int) -> None:
        """An entry of the log has been appended."""
        self.kept.inc(entry.kept)
        for outcome, rows in entry.lost.items():
            for reason in rows.values():
                # An error's text is a label of its own each time; the log has it.
                (self.rejected.labels(reason) if outcome == "rejected" else self.poisoned).inc()
        self.published_bytes.inc(entry.shard.bytes if entry.shard else 0)
        self.log_version.set(version)

    def computed(self, stage: str, unet_rows: int) -> None:
        """The U-Nets of a stage's actors have computed so many rows more."""
        self.unet_rows.labels(stage).inc(unet_rows)

    def stored(self, by: str, tally: Tally) -> None:
        """Calls of storage since the last time, by the driver, its actors or its packers."""
        self.storage_calls.labels(by).inc(tally.calls)
        self.storage_retries.labels(by).inc(tally.retries)


class Counted:
    """Progress that also counts stages and actors; implements `engine.progress.Progress`."""

    def __init__(self, progress: Progress, counters: Counters) -> None:
        self._progress, self._counters = progress, counters
        self._stage = ""
        self.committed, self.note = progress.committed, progress.note

    def stage(self, name: str, total: int, done: int, unit: str = "images") -> None:
        self._stage = name
        self._counters.stage_wanted.labels(name).set(total)
        self._counters.stage_done.labels(name).set(done)
        self._progress.stage(name, total, done, unit)

    def advance(self, images: int, lost: int = 0) -> None:
        self._counters.stage_done.labels(self._stage).inc(images)
        self._progress.advance(images, lost)

    def actors(self, actors: Actors) -> None:
        for state in ACTOR_STATES:
            self._counters.actors.labels(state).set(getattr(actors, state))
        self._counters.capacity_wait_seconds.set(actors.alone if actors.waiting else 0.0)
        self._progress.actors(actors)
