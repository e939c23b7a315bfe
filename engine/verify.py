"""`verify`: is every planned row decided, and is every published byte right? `status`: how far is a run?

Both need the output alone. Verify computes the plan again and reads every shard; status reads the log.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field

from diffii.dataset import layout, log
from diffii.hashing import sha256
from engine.formats.parquet import read_kept
from engine.plan import next_wave
from engine.run import Run, load_run, stale_files


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What `verify` found. `problems` says in words why `ok` is false."""

    rows: int
    kept: int
    rejected: int
    poisoned: int
    short: int
    """Rows that the targets call for and that are not kept."""
    shards: int
    classes: int
    orphans: list[str]
    """Files that belong to nothing; they harm no reader, and the next run removes the staged ones."""
    reproducible: bool
    """One device kind, arithmetic and set of versions computed every row."""
    digest: str
    """SHA-256 over the sorted (sample id, image hash) of kept rows: what the data set holds."""
    shards_digest: str
    """SHA-256 over the shards' hashes in log order: how it is stored, to the byte."""
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(url: str) -> Verification:
    """Check a data set against its log and its plan. Raises OutputError when there is none."""
    run = load_run(url)
    problems = _undecided(run)
    samples: list[tuple[str, str]] = []
    shard_hashes: list[str] = []
    for entry in run.commits:
        if entry.shard is None:
            continue
        shard_hashes.append(entry.shard.sha256)
        found, trouble = _check_shard(run, entry, entry.shard)
        samples += found
        problems += trouble
    if len({sample_id for sample_id, _ in samples}) != len(samples):
        problems.append("a sample id stands in more than one row")
    kept = sum(entry.kept for entry in run.commits)
    text = "\n".join(f"{sample_id} {image}" for sample_id, image in sorted(samples))
    return Verification(
        rows=sum(entry.rows for entry in run.commits),
        kept=kept,
        rejected=sum(entry.count("rejected") for entry in run.commits),
        poisoned=sum(entry.count("poisoned") for entry in run.commits),
        short=sum(run.waves[-1].targets) - kept if run.waves else 0,
        shards=len(shard_hashes),
        classes=sum(1 for images in run.source.by_class if images),
        orphans=orphans(run),
        reproducible=len({name for entry in run.commits for name in entry.fingerprints}) <= 1,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        shards_digest=hashlib.sha256("\n".join(shard_hashes).encode()).hexdigest(),
        problems=problems,
    )


def orphans(run: Run) -> list[str]:
    """Shards that the log does not name, staged chunks that it has decided, half-written files."""
    named = {entry.shard.name for entry in run.commits if entry.shard}
    unnamed = [name for name, _ in run.storage.find(layout.DATA) if name not in named]
    if run.open_wave() is not None:
        # A shard is written just before its entry: while a run goes on, the next ones are not orphans.
        newest = max(named, default="")
        unnamed = [name for name in unnamed if name < newest]
    return sorted({*unnamed, *stale_files(run)})


def _undecided(run: Run) -> list[str]:
    if not run.waves:
        return ["nothing is planned yet"]
    problems: list[str] = []
    for wave in run.waves:
        position = 0
        for entry in (entry for entry in run.commits if entry.wave == wave.wave):
            if entry.first != position:
                problems.append(f"wave {wave.wave}: chunk {position} is missing from the log")
            position = entry.last + 1
        if position < run.plan.chunk_count(wave):
            missing = run.plan.row_count(wave) - position * run.config.commit.chunk_size
            problems.append(f"{missing} planned rows have no outcome yet; run the same expand command again")
    return problems


def _check_shard(run: Run, entry: log.CommitEntry, shard: log.Shard) -> tuple[list[tuple[str, str]], list[str]]:
    """(sample id, image hash) of each row in a shard, and what is wrong with it."""
    data = run.storage.read_or_none(shard.name)
    if data is None:
        return [], [f"{shard.name} is missing; restore it from a copy"]
    if sha256(data) != shard.sha256:
        return [], [f"{shard.name} is not what was written (its hash differs); restore it from a copy"]
    wave = next(wave for wave in run.waves if wave.wave == entry.wave)
    first = entry.first * run.config.commit.chunk_size
    planned = run.plan.rows(wave, first, first + entry.rows)
    lost = {int(row) for rows in entry.lost.values() for row in rows}
    expected = [row.sample_id for number, row in enumerate(planned) if number not in lost]
    samples = [(sample_id, sha256(image)) for sample_id, image in read_kept(data)]
    if [sample_id for sample_id, _ in samples] != expected:
        return samples, [f"{shard.name} does not hold the rows that its log entry and the plan say"]
    return samples, []


def _refill(run: Run) -> log.WaveEntry | None:
    """The wave that the last one's own targets still call for; the configuration that asked is not at hand here."""
    last = run.waves[-1]
    return next_wave(run.plan, run.waves, run.kept(), last.targets, last.limits)


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far a run is, from its log and its staged chunks."""

    url: str
    state: str
    """`complete`, or `incomplete`: an expand with the same settings goes on from here."""
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
    reasons: dict[str, int]
    """Why rows were not kept, and how many, the most frequent first."""


def status(url: str) -> Status:
    """Raises OutputError when there is no data set."""
    run = load_run(url)
    planned = sum(run.plan.row_count(wave) for wave in run.waves)
    decided = sum(entry.rows for entry in run.commits)
    wave = run.open_wave()
    chunks = run.storage.names(layout.staged_wave(wave.wave)) if wave else []
    reasons: Counter[str] = Counter()
    for entry in run.commits:
        for outcome, rows in entry.lost.items():
            reasons.update(f"{outcome}: {reason}" for reason in rows.values())
    return Status(
        url=run.storage.url,
        state="complete" if run.waves and wave is None and _refill(run) is None else "incomplete",
        version=len(run.entries) - 1,
        planned=planned,
        decided=decided,
        staged=len(chunks) * run.config.commit.chunk_size,
        kept=sum(entry.kept for entry in run.commits),
        rejected=sum(entry.count("rejected") for entry in run.commits),
        poisoned=sum(entry.count("poisoned") for entry in run.commits),
        shards=run.shard_count(),
        bytes=sum(entry.shard.bytes for entry in run.commits if entry.shard),
        classes=dict(zip(run.source.classes, run.kept(), strict=True)),
        reasons=dict(reasons.most_common()),
    )
