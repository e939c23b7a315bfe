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
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample
from ray.util import metrics

from diffii.errors import OutputError
from engine.counters import Counters

GAUGE = "gauge"
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


def served(counters: Counters) -> dict[str, tuple[str, ...]]:
    """The name of every series at Ray's endpoint -> its labels, beside those that Ray gives to each."""
    return {_served(sample.name, family.type == GAUGE): tuple(sample.labels) for sample, family in _samples(counters)}


def _served(name: str, gauge: bool) -> str:
    # Ray puts its name before each, and ends each counter as one, a histogram's sum too.
    return f"ray_{name}" if gauge or name.endswith("_total") else f"ray_{name}_total"


def _samples(counters: Counters) -> Iterator[tuple[Sample, Metric]]:
    """What Ray is told, and of which metric it is. Of a histogram, its sum and its count."""
    for family in counters.registry.collect():
        for sample in family.samples:
            if not sample.name.endswith("_bucket"):
                yield sample, family


class Mirror:
    """Tells Ray what has been added to the counters since the last time, at first that there is nothing. Of a
    histogram, its sum and its count, as counters."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._there: dict[str, metrics.Counter | metrics.Gauge] = {}
        self._told: dict[tuple[str, tuple[str, ...]], float] = {}

    def update(self) -> None:
        if not ray.is_initialized():
            return
        for sample, family in _samples(self._counters):
            there = self._metric(sample, family)
            if isinstance(there, metrics.Gauge):
                there.set(sample.value, tags=dict(sample.labels))
                continue
            key = (sample.name, tuple(sample.labels.values()))
            if key not in self._told:
                # `inc` takes no 0, and a series that begins with its first event shows no increase by it.
                there._record(0.0, tags=dict(sample.labels))
                self._told[key] = 0.0
            if sample.value > self._told[key]:
                there.inc(sample.value - self._told[key], tags=dict(sample.labels))
                self._told[key] = sample.value

    def _metric(self, sample: Sample, family: Metric) -> metrics.Counter | metrics.Gauge:
        if sample.name not in self._there:
            make = metrics.Gauge if family.type == GAUGE else metrics.Counter
            self._there[sample.name] = make(sample.name, family.documentation, tag_keys=tuple(sample.labels))
        return self._there[sample.name]
