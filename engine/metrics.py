"""Where a run's counters can be read while it works: Ray's own metrics endpoint, and a file if one is asked for.

Ray serves every node's metrics to Prometheus at that node's export port, the driver's among them, where `ray[default]`
is installed; without it the file is all there is.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import ray
from prometheus_client import write_to_textfile
from ray.util import metrics

from diffii.errors import OutputError
from engine.counters import Counters

EVERY_SECONDS = 5.0
"""Half of the time between two reports of Ray."""


@contextlib.contextmanager
def exported(counters: Counters, file: Path | None = None) -> Iterator[None]:
    """Keep both up to date until the end of the block. Raises OutputError when the file cannot be made."""
    mirror, over = Mirror(counters), threading.Event()
    write(counters, file)  # said at once, not after hours

    def keep() -> None:
        while not over.wait(EVERY_SECONDS):
            mirror.update()
            # What is counted is not worth ending a run for.
            with contextlib.suppress(OutputError):
                write(counters, file)

    thread = threading.Thread(target=keep, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        mirror.update()
        with contextlib.suppress(OutputError):
            write(counters, file)


def write(counters: Counters, file: Path | None) -> None:
    """Replace a file by the counters in Prometheus' text format, whole. Raises OutputError."""
    if file is None:
        return
    try:
        write_to_textfile(str(file), counters.registry)
    except OSError as error:
        raise OutputError(f"--metrics: {file} cannot be written: {error.strerror or error}") from error


class Mirror:
    """Tells Ray what has been added to the counters since the last time. Of a histogram, its sum and its count, as
    counters."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._there: dict[str, metrics.Counter | metrics.Gauge] = {}
        self._told: dict[tuple[str, tuple[str, ...]], float] = {}

    def update(self) -> None:
        if not ray.is_initialized():
            return
        for family in self._counters.registry.collect():
            for sample in family.samples:
                if sample.name.endswith("_bucket"):
                    continue
                there = self._metric(sample.name, family.documentation, family.type, tuple(sample.labels))
                if isinstance(there, metrics.Gauge):
                    there.set(sample.value, tags=dict(sample.labels))
                    continue
                key = (sample.name, tuple(sample.labels.values()))
                if sample.value > self._told.get(key, 0.0):
                    there.inc(sample.value - self._told.get(key, 0.0), tags=dict(sample.labels))
                    self._told[key] = sample.value

    def _metric(self, name: str, text: str, kind: str, labels: tuple[str, ...]) -> metrics.Counter | metrics.Gauge:
        if name not in self._there:
            make = metrics.Gauge if kind == "gauge" else metrics.Counter
            self._there[name] = make(name, text, tag_keys=labels)
        return self._there[name]
