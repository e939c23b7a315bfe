"""A run: one output, the log that tells what it is, and the plan that the log's settings stand for.

`prepare` looks at source and output and refuses what does not fit together, before anything is loaded or written;
`begin` writes what must exist before the first row. `load_run` opens what is there, for status and verify.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from diffii.dataset import layout, log
from diffii.dataset.history import History, iter_entries, read_log
from diffii.dataset.storage import Storage
from diffii.dataset.tables import read_table
from diffii.embedder_weights import embedder_digest
from diffii.errors import OutputError
from diffii.weights import locate, weights_digest
from engine.append import LogWriter
from engine.card_of_run import write_card
from engine.config import AUTO, OFF, UNSAID, Config
from engine.defaults import resolve, with_values
from engine.learned import Learned
from engine.leftovers import decided_already, half_written
from engine.licences import licence_at
from engine.plan import Plan, next_wave
from engine.scan import LookAt, Reading, read_source
from engine.settings import from_flat
from engine.source import Source

WEIGHTS = "weights"
"""Key beside the configuration's own in a log's identity: what the model is, whatever it is called."""

EMBEDDER = "embedder_weights"
"""The same for the model that near-copies are recognised by."""
CONCEPTS, SUFFIXES = "concepts_digest", "suffixes_digest"
"""The same for what was learned from the source."""
DIGESTS = (WEIGHTS, EMBEDDER, CONCEPTS, SUFFIXES)
CONCEPTS_FROM = "learn.concepts"
GIVEN = "given"
"""Stands in the log for the URL of concepts that the user gave."""

_UNNAMED = {**UNSAID, **{key: value for key, value in Config().flat().items() if key.startswith("arm.")}}
"""What an identity means by what it does not name (`Config.identity`)."""

_MAY_STAND_THERE = frozenset({layout.OWN, layout.DEMO_SOURCE})
"""What an output may hold before its first entry: our own beginnings, and the demo's exported source."""


@dataclass
class Run:
    """An output with its plan and its log; `history` grows as the run goes on."""

    storage: Storage
    config: Config
    source: Source
    plan: Plan
    history: History
    writer: LogWriter = field(init=False)
    """Appends to the log in this process's name."""
    _swept: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.writer = LogWriter(self.storage, self.history, secrets.token_hex(8))

    @property
    def waves(self) -> list[log.WaveEntry]:
        return self.history.waves

    def commits(self) -> Iterator[log.CommitEntry]:
        """What became of every row, read from storage again: see `engine.status` for sums."""
        if self.history.version < 0:
            return
        for entry in iter_entries(self.storage, self.history.version):
            if isinstance(entry, log.CommitEntry):
                yield entry

    def sidecars(self, columns: list[str]) -> Iterator[pa.Table]:
        """Per published shard some columns of what its rows are compared by, in commit order."""
        for shard in self.history.shards:
            with self.storage.open(shard.sidecar) as file:
                yield read_table(file, columns)

    @property
    def identity(self) -> dict[str, Any]:
        """What may never change: settings, and digests of what they name. Another place of the same concepts is the
        same; learning them, being given them and doing without are not."""
        learned = self.plan.learned
        digests = {EMBEDDER: self.plan.embedder, CONCEPTS: learned.concepts, SUFFIXES: learned.suffixes_digest}
        present = {key: value for key, value in digests.items() if value}
        kind = {CONCEPTS_FROM: concepts_from(self.config)}
        return {**self.config.identity(), **kind, WEIGHTS: self.plan.weights, **present}

    def learn(self, learned: Learned) -> None:
        """Make the plan anew with what was learned; only before the log's first entry."""
        assert self.history.version < 0
        self.plan = replace_learned(self.plan, learned)

    def open_wave(self) -> log.WaveEntry | None:
        """The wave that is begun and not wholly decided, if any."""
        if not self.waves:
            return None
        last = self.waves[-1]
        return last if self.history.next_chunk(last.wave) < self.plan.chunk_count(last) else None

    def kept(self) -> list[int]:
        """Kept rows per class."""
        return [self.history.kept_per_class[label] for label in range(len(self.source.classes))]

    def next_wave(self) -> log.WaveEntry | None:
        """What the configured targets still call for once the begun waves are decided. Raises ConfigError."""
        return next_wave(self.plan, self.waves, self.kept(), self.plan.targets(), self.plan.limits())

    @property
    def complete(self) -> bool:
        return bool(self.waves) and self.open_wave() is None and self.next_wave() is None

    @property
    def filled(self) -> bool:
        """Whether all that the last wave's own targets call for is decided: what a data set says of itself that was
        opened by its URL, when the configuration that asked is not at hand."""
        if not self.waves or self.open_wave() is not None:
            return False
        last = self.waves[-1]
        return next_wave(self.plan, self.waves, self.kept(), last.targets, last.limits) is None

    def sweep(self) -> None:
        """Remove what the log has decided, and once what a dead process did not finish: this one finishes its own."""
        if not self._swept:
            self.writer.mend()
            for name in half_written(self.storage):
                self.storage.remove(name)
            self._swept = True
        for name in decided_already(self.storage, self.history):
            self.storage.remove(name)

    def refresh(self) -> None:
        """Read the log again: another driver may have gone on since. Raises OutputError."""
        self.history = read_log(self.storage)
        self.writer = LogWriter(self.storage, self.history, secrets.token_hex(8))
        self.plan = replace_learned(self.plan, learned_of(self.history))
        _check(self)


def prepare(config: Config, source: Source | None = None, elsewhere: LookAt | None = None) -> Run:
    """Read the source, find the model, open the output, and check that they belong together. Writes nothing.

    `elsewhere` looks at the images of a large source (`engine.scan.read_source`).
    Raises SourceError, ModelError, ConfigError or OutputError.
    """
    plan = make_plan(config, source, elsewhere)
    storage = Storage(config.output.url)
    history = read_log(storage)
    run = Run(storage, plan.config, plan.source, replace_learned(plan, learned_of(history)), history)
    _check(run)
    return run


def make_plan(config: Config, source: Source | None = None, elsewhere: LookAt | None = None) -> Plan:
    """Scan the source, settle what `auto` means, and find the model. Raises SourceError, ModelError or ConfigError."""
    source = source or read_source(config.source.url, Reading.of(config.source), elsewhere=elsewhere)
    resolved = resolve(config, source.classes)
    if not resolved.source.license:
        resolved = with_values(resolved, {"source.license": licence_at(source.url)})
    embedder = "" if resolved.dedup.embedder == OFF else embedder_digest(resolved.dedup.embedder)
    return Plan(resolved, source, weights_digest(locate(resolved.backbone.model)), embedder)


def learned_of(history: History) -> Learned | None:
    """What a begun run has learned; None when its log is still to be begun."""
    first = history.opening
    if first is None:
        return None
    return Learned(first.identity.get(CONCEPTS, ""), first.names, tuple(first.suffixes))


def replace_learned(plan: Plan, learned: Learned | None) -> Plan:
    return Plan(plan.config, plan.source, plan.weights, plan.embedder, learned)


def begin(run: Run) -> None:
    """Write the card and the log's first entry, unless they are there; sweep what a dead run left behind."""
    if run.history.version < 0:
        run.storage.put_once(layout.source_manifest(run.source.digest), run.source.to_parquet())
        write_card(run)
        classes, model = list(run.source.classes), run.config.backbone.model
        learned = run.plan.learned
        run.writer.append(
            log.OpenEntry(
                identity=run.identity,
                source=run.source.digest,
                classes=classes,
                model=model,
                origin=run.source.url,
                names=dict(learned.names),
                suffixes=list(learned.suffixes),
            )
        )
    run.sweep()
    if run.open_wave() is None:
        wave = run.next_wave()
        if wave is not None:
            run.writer.append(wave)


def concepts_from(config: Config) -> str:
    """`auto`, `off` or `given`."""
    return config.learn.concepts if config.learn.concepts in (AUTO, OFF) else GIVEN


def load_run(url: str) -> Run:
    """Open a finished or growing data set by its URL alone. Raises OutputError when there is none."""
    storage = Storage(url)
    history = read_log(storage)
    first = history.opening
    if first is None:
        raise OutputError(f"{url} holds no data set of diffii (no {layout.LOG} in it)")
    manifest = storage.read_or_none(layout.source_manifest(first.source))
    if manifest is None:
        raise OutputError(f"{url}: {layout.source_manifest(first.source)} is missing; restore it from a copy")
    # Where the images were; whether they still are, nobody has looked.
    source = Source.from_parquet(first.origin, first.classes, manifest)
    settings = {key: value for key, value in first.identity.items() if key not in DIGESTS}
    config = from_flat({**UNSAID, **settings, "output.url": url, "backbone.model": first.model})
    plan = Plan(config, source, first.identity[WEIGHTS], first.identity.get(EMBEDDER, ""), learned_of(history))
    return Run(storage, config, source, plan, history)


def _check(run: Run) -> None:
    """Refuse an output that is not this run's to go on with. Raises OutputError or ConfigError."""
    if run.history.version < 0:
        _check_free(run.storage)
    else:
        _check_same(run)
    run.next_wave()


def _check_free(storage: Storage) -> None:
    if storage.is_local:
        path = Path(storage.root)
        there = next(place for place in (path, *path.parents) if storage.fs.exists(str(place)))
        if not storage.fs.isdir(str(there)):
            raise OutputError(f"{there} is a file, so no data set can be written to {storage.url}; choose a folder")
    foreign = [name for name in storage.names() if name not in _MAY_STAND_THERE]
    if foreign:
        raise OutputError(
            f"{storage.url} holds something else ({', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}); "
            "choose an empty or new output, so that nothing of it can be lost"
        )


def _check_same(run: Run) -> None:
    first = run.history.opening
    if first is None:
        raise OutputError(f"{run.storage.url}: log entry 0 does not open a data set; restore it from a copy")
    there, now = ({**_UNNAMED, **identity} for identity in (first.identity, run.identity))
    changes = [
        f"{key}: {there.get(key)!r} there, {now.get(key)!r} now"
        for key in {**there, **now}
        if there.get(key) != now.get(key)
    ]
    if changes:
        raise OutputError(
            f"{run.storage.url} was begun with other settings; repeat them, or begin anew elsewhere with "
            f"--fork NEW_OUT, which takes along what still fits. " + "; ".join(changes)
        )
    if first.source != run.source.digest:
        before = run.storage.read_or_none(layout.source_manifest(first.source))
        count = f"{len(Source.from_parquet('', first.classes, before).images)} images" if before else "other images"
        raise OutputError(
            f"{run.storage.url} was made from another source ({count} of {len(first.classes)} classes there, "
            f"{len(run.source.images)} of {len(run.source.classes)} now); choose another output"
        )
