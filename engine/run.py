"""A run: one output, the log that tells what it is, and the plan that the log's settings stand for.

`prepare` looks at source and output and refuses what does not fit together, before anything is loaded or written;
`begin` writes what must exist before the first row. `load_run` opens what is there, for status and verify.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from diffii.dataset import layout, log
from diffii.dataset.storage import TEMPORARY, Storage
from diffii.errors import OutputError
from diffii.hashing import digest
from diffii.weights import locate, weights_digest
from engine.card import Counts, data_set_card
from engine.commit import append
from engine.config import Config
from engine.defaults import resolve
from engine.plan import Plan, next_wave
from engine.scan import read_source
from engine.settings import from_flat
from engine.source import Source

WEIGHTS = "weights"
"""Key beside the configuration's own in a log's identity: what the model is, whatever it is called."""

_MAY_STAND_THERE = frozenset({layout.OWN, "source"})
"""What an output may hold before its first entry: our own beginnings, and the demo's exported source."""


@dataclass
class Run:
    """An output with its plan and its log; `entries` grows as the run goes on."""

    storage: Storage
    config: Config
    source: Source
    plan: Plan
    entries: list[log.Entry] = field(default_factory=list)

    @property
    def waves(self) -> list[log.WaveEntry]:
        return [entry for entry in self.entries if isinstance(entry, log.WaveEntry)]

    @property
    def commits(self) -> list[log.CommitEntry]:
        return [entry for entry in self.entries if isinstance(entry, log.CommitEntry)]

    @cached_property
    def identity(self) -> dict[str, Any]:
        return {**self.config.identity(), WEIGHTS: self.plan.weights}

    def next_chunk(self, wave: int) -> int:
        """The first chunk of a wave that no log entry decides."""
        return max((entry.last + 1 for entry in self.commits if entry.wave == wave), default=0)

    def shard_count(self) -> int:
        return sum(entry.shard is not None for entry in self.commits)

    def open_wave(self) -> log.WaveEntry | None:
        """The wave that is begun and not wholly decided, if any."""
        if not self.waves:
            return None
        last = self.waves[-1]
        return last if self.next_chunk(last.wave) < self.plan.chunk_count(last) else None

    def kept(self) -> list[int]:
        """Kept rows per class."""
        counts = [0] * len(self.source.classes)
        for entry in self.commits:
            for label, rows in entry.kept_per_class.items():
                counts[int(label)] += rows
        return counts

    def next_wave(self) -> log.WaveEntry | None:
        """What the configured targets still call for once the begun waves are decided. Raises ConfigError."""
        return next_wave(self.plan, self.waves, self.kept(), self.plan.targets(), self.plan.limits())

    @property
    def complete(self) -> bool:
        return bool(self.waves) and self.open_wave() is None and self.next_wave() is None

    def add(self, entry: log.Entry) -> None:
        append(self.storage, len(self.entries), entry)
        self.entries.append(entry)


def prepare(config: Config, source: Source | None = None) -> Run:
    """Read the source, find the model, open the output, and check that they belong together. Writes nothing.

    Raises SourceError, ModelError, ConfigError or OutputError.
    """
    plan = make_plan(config, source)
    run = Run(Storage(config.output.url), plan.config, plan.source, plan)
    run.entries = log.read_log(run.storage)
    if not run.entries:
        _check_free(run.storage)
    else:
        _check_same(run)
    run.next_wave()
    return run


def make_plan(config: Config, source: Source | None = None) -> Plan:
    """Scan the source, settle what `auto` means, and find the model. Raises SourceError, ModelError or ConfigError."""
    source = source or read_source(config.source.url)
    resolved = resolve(config, source.classes)
    return Plan(resolved, source, weights_digest(locate(resolved.backbone.model)))


def begin(run: Run) -> None:
    """Write the card and the log's first entry, unless they are there; sweep what a dead run left behind."""
    if not run.entries:
        run.storage.put_once(layout.source_manifest(run.source.digest), run.source.to_parquet())
        write_card(run)
        classes, model = list(run.source.classes), run.config.backbone.model
        run.add(log.OpenEntry(identity=run.identity, source=run.source.digest, classes=classes, model=model))
    sweep(run)
    if run.open_wave() is None:
        wave = run.next_wave()
        if wave is not None:
            run.add(wave)


def write_card(run: Run) -> None:
    """Bring the data set card up to the log; each commit does, see `engine.card`."""
    shards = [entry.shard for entry in run.commits if entry.shard]
    counts = Counts(
        rows=sum(shard.rows for shard in shards),
        real=len(run.source.images),
        shards=len(shards),
        content=digest(run.identity, run.source.digest, [shard.sha256 for shard in shards])[:16],
        complete=run.complete,
    )
    run.storage.put(layout.CARD, data_set_card(run.source.classes, run.config, counts).encode())


def sweep(run: Run) -> None:
    """Remove staged chunks that the log has decided, and half-written files of a driver or actor that died."""
    for name in stale_files(run):
        run.storage.remove(name)


def stale_files(run: Run) -> list[str]:
    """Files that no run needs any more."""
    stale: list[str] = []
    for name, _ in run.storage.find(layout.OWN) + run.storage.find(layout.DATA):
        if name.rsplit("/", 1)[-1].startswith(TEMPORARY):
            stale.append(name)
    for wave in run.waves:
        decided = run.next_chunk(wave.wave)
        for name in run.storage.names(layout.staged_wave(wave.wave)):
            chunk = name.removeprefix("chunk-").removesuffix(".parquet")
            if chunk.isdigit() and int(chunk) < decided:
                stale.append(f"{layout.staged_wave(wave.wave)}/{name}")
        for name in run.storage.names(layout.attempts_wave(wave.wave)):
            number = layout.attempt_chunk(name)
            if number is not None and number < decided:
                stale.append(f"{layout.attempts_wave(wave.wave)}/{name}")
    return stale


def load_run(url: str) -> Run:
    """Open a finished or growing data set by its URL alone. Raises OutputError when there is none."""
    storage = Storage(url)
    entries = log.read_log(storage)
    if not entries or not isinstance(entries[0], log.OpenEntry):
        raise OutputError(f"{url} holds no data set of diffii (no {layout.LOG} in it)")
    first = entries[0]
    manifest = storage.read_or_none(layout.source_manifest(first.source))
    if manifest is None:
        raise OutputError(f"{url}: {layout.source_manifest(first.source)} is missing; restore it from a copy")
    source = Source.from_parquet(url, first.classes, manifest)
    settings = {key: value for key, value in first.identity.items() if key != WEIGHTS}
    config = from_flat({**settings, "output.url": url, "backbone.model": first.model})
    return Run(storage, config, source, Plan(config, source, first.identity[WEIGHTS]), entries)


def _check_free(storage: Storage) -> None:
    foreign = [name for name in storage.names() if name not in _MAY_STAND_THERE]
    if foreign:
        raise OutputError(
            f"{storage.url} holds something else ({', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}); "
            "choose an empty or new output, so that nothing of it can be lost"
        )


def _check_same(run: Run) -> None:
    first = run.entries[0]
    if not isinstance(first, log.OpenEntry):
        raise OutputError(f"{run.storage.url}: log entry 0 does not open a data set; restore it from a copy")
    changes = [
        f"{key}: {first.identity.get(key)!r} there, {value!r} now"
        for key, value in run.identity.items()
        if first.identity.get(key) != value
    ]
    if changes:
        raise OutputError(
            f"{run.storage.url} was begun with other settings; repeat them or choose another output. "
            + "; ".join(changes)
        )
    if first.source != run.source.digest:
        before = run.storage.read_or_none(layout.source_manifest(first.source))
        count = f"{len(Source.from_parquet('', first.classes, before).images)} images" if before else "other images"
        raise OutputError(
            f"{run.storage.url} was made from another source ({count} of {len(first.classes)} classes there, "
            f"{len(run.source.images)} of {len(run.source.classes)} now); choose another output"
        )
