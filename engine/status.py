"""`status`: how far a run is, from its output alone: the log, the staged chunks, the heartbeat."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from diffii.dataset import layout
from diffii.dataset.driver import Driver
from diffii.dataset.history import newest_version
from diffii.dataset.log import WaveEntry
from diffii.dataset.storage import Storage
from engine import heartbeat
from engine.prepare import load_run
from engine.reproducible import why_not
from engine.run import Run

COMPLETE, RUNNING, WAITING, INCOMPLETE = "complete", "running", "waiting for capacity", "incomplete"


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far a run is."""

    url: str
    state: str
    """`complete`; `running`: a driver is at work; `waiting for capacity`: it is, and no machine has room for an
    actor; or `incomplete`: an expand with the same settings goes on from here."""
    driver: str
    """Who is at work, if anybody."""
    doing: dict[str, Any]
    """What the driver said with its last beat (`diffii.dataset.driver.Doing`); empty without a driver."""
    seconds_left: float | None
    """Of the driver's stage at its speed of the last minutes; None when nobody can tell."""
    version: int
    planned: int
    decided: int
    staged: int
    kept: int
    rejected: int
    poisoned: int
    shards: int
    bytes: int
    classes: dict[str, int]
    """Kept rows per class."""
    targets: dict[str, int]
    """Rows wanted per class."""
    short: dict[str, str]
    """Classes that a complete run could not fill -> why."""
    reasons: dict[str, int]
    """Why rows were not kept, and how many, the most frequent first."""
    near_copies: dict[str, Any]
    """From which distance on an image counts as a near-copy, as measured on the real images; empty when off."""
    reproducible: bool
    fingerprints: list[str]
    """What computed the rows; more than one is why a run is not reproducible."""
    not_reproducible: str
    """The same in words; empty when it is reproducible."""


def status(url: str) -> Status:
    """Raises OutputError when there is no data set, and nobody is about to begin one."""
    storage = Storage(url)
    if newest_version(storage) < 0 and (driver := heartbeat.seen(storage)) is not None:
        return _beginning(storage, driver)
    run = load_run(url)
    history = run.history
    wave = run.open_wave()
    complete = run.history.complete
    driver = None if complete else heartbeat.seen(run.storage)
    kept = dict(zip(run.source.classes, run.kept(), strict=True))
    return Status(
        url=run.storage.url,
        state=_state(complete, driver),
        **_told(driver),
        version=history.version,
        planned=sum(run.plan.row_count(wave) for wave in run.waves),
        decided=history.rows,
        staged=_staged(run, wave) if wave else 0,
        kept=history.kept,
        rejected=history.count("rejected"),
        poisoned=history.count("poisoned"),
        shards=len(history.shards),
        bytes=history.bytes,
        classes=kept,
        targets=dict(zip(run.source.classes, run.targets, strict=True)),
        short=_short(run) if complete else {},
        reasons={f"{outcome}: {reason}": rows for (outcome, reason), rows in history.lost.most_common()},
        near_copies=history.calibration.record if history.calibration else {},
        reproducible=len(history.fingerprints) <= 1,
        fingerprints=sorted(history.fingerprints),
        not_reproducible=why_not(history.fingerprints),
    )


def _staged(run: Run, wave: WaveEntry) -> int:
    """Rows of chunks that are made and not decided."""
    size, rows = run.config.commit.chunk_size, run.plan.row_count(wave)
    numbers = [layout.staged_number(name) for name in run.storage.names(layout.staged_wave(wave.wave))]
    first = run.history.next_chunk(wave.wave)
    return sum(min(size, rows - number * size) for number in numbers if number is not None and number >= first)


def _beginning(storage: Storage, driver: Driver) -> Status:
    """A run whose driver captions or learns, or waits to: there is no log yet."""
    return Status(
        url=storage.url,
        state=_state(False, driver),
        **_told(driver),
        version=-1,
        planned=0,
        decided=0,
        staged=0,
        kept=0,
        rejected=0,
        poisoned=0,
        shards=0,
        bytes=0,
        classes={},
        targets={},
        short={},
        reasons={},
        near_copies={},
        reproducible=True,
        fingerprints=[],
        not_reproducible="",
    )


def _state(complete: bool, driver: Driver | None) -> str:
    if complete:
        return COMPLETE
    if driver is None:
        return INCOMPLETE
    return WAITING if driver.doing.waiting_seconds else RUNNING


def _told(driver: Driver | None) -> dict[str, Any]:
    if driver is None:
        return {"driver": "", "doing": {}, "seconds_left": None}
    return {"driver": str(driver), "doing": asdict(driver.doing), "seconds_left": driver.doing.seconds_left}


def _short(run: Run) -> dict[str, str]:
    last = run.waves[-1]
    rows = enumerate(zip(run.kept(), last.targets, last.stops, strict=True))
    short = {label: numbers for label, numbers in rows if numbers[0] < numbers[1]}
    lost = _lost(run, set(short)) if short else {}
    told: dict[str, str] = {}
    for label, (kept, target, tried) in short.items():
        why = ", ".join(f"{count} {reason}" for reason, count in lost[label].most_common())
        told[run.source.classes[label]] = (
            f"{kept} of {target} kept after {tried} tries, which expansion.max_attempts allows: {why}"
        )
    return told


def _lost(run: Run, labels: set[int]) -> dict[int, Counter[str]]:
    """Why rows of some classes were not kept, and how many."""
    found = {label: Counter[str]() for label in labels}
    for entry in run.commits():
        lost = {int(row): why for rows in entry.lost.values() for row, why in rows.items()}
        if lost:
            first = entry.first * run.config.commit.chunk_size
            wave = run.waves[entry.wave]
            classes = run.plan_of(wave).labels(wave, first, first + entry.rows)
            for row, why in lost.items():
                if int(classes[row]) in found:
                    found[int(classes[row])][why] += 1
    return found
