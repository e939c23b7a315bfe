"""`verify`: is every planned row decided, and is every published byte right?

Needs the output alone: it computes the plan again and reads every shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from diffii.dataset import log
from diffii.hashing import sha256
from engine.formats.parquet import read_kept
from engine.leftovers import orphans, repair
from engine.prepare import load_run
from engine.reproducible import why_not
from engine.run import Run


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
    repaired: list[str]
    """What `--repair` did."""
    orphans: list[str]
    """Files that belong to nothing; they harm no reader, and the next run removes the staged ones."""
    reproducible: bool
    """One device kind, arithmetic, micro-batch and set of versions computed every row."""
    not_reproducible: str
    """Why not, in words."""
    digest: str
    """SHA-256 over the sorted (sample id, image hash) of kept rows: what the data set holds."""
    shards_digest: str
    """SHA-256 over the shards' hashes in log order: how it is stored, to the byte."""
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(url: str, mend: bool = False) -> Verification:
    """Check a data set against its log and its plan; `mend` removes orphans first. Raises OutputError when there is
    none."""
    run = load_run(url)
    history = run.history
    decided = bool(run.waves) and run.open_wave() is None
    repaired = repair(run.storage, history, decided) if mend else []
    problems = [] if run.waves else ["nothing is planned yet"]
    samples: list[tuple[str, str]] = []
    positions = dict.fromkeys((wave.wave for wave in run.waves), 0)
    for entry in run.commits():
        if entry.first != positions[entry.wave]:
            problems.append(f"wave {entry.wave}: chunk {positions[entry.wave]} is missing from the log")
        positions[entry.wave] = entry.last + 1
        if entry.shard is not None:
            found, trouble = _check_shard(run, entry, entry.shard)
            samples += found
            problems += trouble
    problems += _undecided(run, positions)
    if len({sample_id for sample_id, _ in samples}) != len(samples):
        problems.append("a sample id stands in more than one row")
    text = "\n".join(f"{sample_id} {image}" for sample_id, image in sorted(samples))
    return Verification(
        rows=history.rows,
        kept=history.kept,
        rejected=history.count("rejected"),
        poisoned=history.count("poisoned"),
        short=sum(run.targets) - history.kept,
        shards=len(history.shards),
        classes=sum(1 for images in run.source.by_class if images),
        repaired=repaired,
        orphans=orphans(run.storage, history, decided),
        reproducible=len(history.fingerprints) <= 1,
        not_reproducible=why_not(history.fingerprints),
        digest=hashlib.sha256(text.encode()).hexdigest(),
        shards_digest=history.shards.digest,
        problems=problems,
    )


def _undecided(run: Run, positions: dict[int, int]) -> Iterator[str]:
    for wave in run.waves:
        plan = run.plan_of(wave)
        if positions[wave.wave] < plan.chunk_count(wave):
            missing = plan.row_count(wave) - positions[wave.wave] * run.config.commit.chunk_size
            yield f"{missing} planned rows have no outcome yet; run the same expand command again"


def _check_shard(run: Run, entry: log.CommitEntry, shard: log.Shard) -> tuple[list[tuple[str, str]], list[str]]:
    """(sample id, image hash) of each row in a shard, and what is wrong with it."""
    for name, expected in ((shard.sidecar, shard.sidecar_sha256), (shard.name, shard.sha256)):
        data = run.storage.read_or_none(name)
        if data is None:
            return [], [f"{name} is missing; restore it from a copy"]
        if sha256(data) != expected:
            return [], [f"{name} is not what was written (its hash differs); restore it from a copy"]
    wave = run.waves[entry.wave]
    first = entry.first * run.config.commit.chunk_size
    planned = run.plan_of(wave).rows(wave, first, first + entry.rows)
    lost = {int(row) for rows in entry.lost.values() for row in rows}
    expected_ids = [row.sample_id for number, row in enumerate(planned) if number not in lost]
    samples = [(sample_id, sha256(image)) for sample_id, image in read_kept(data)]
    if [sample_id for sample_id, _ in samples] != expected_ids:
        return samples, [f"{shard.name} does not hold the rows that its log entry and the plan say"]
    return samples, []
