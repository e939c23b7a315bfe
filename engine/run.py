"""A run: one output, the log that tells what it is, and the plan that the log's settings stand for."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from diffii.dataset import layout, log
from diffii.dataset.history import History, iter_entries
from diffii.dataset.storage import Storage
from diffii.dataset.tables import read_table
from diffii.errors import OutputError
from engine.append import LogWriter
from engine.cache_keys import LATENTS_STORED
from engine.card_of_run import write_card
from engine.config import AUTO, OFF, Config
from engine.growth import Growth
from engine.learned import Learned
from engine.leftovers import decided_already, half_written
from engine.next_wave import next_wave
from engine.plan import Plan
from engine.seasons import CONCEPTS, fitted, growths_of, learned_of, source_of
from engine.source import Source

WEIGHTS = "weights"
"""Key beside the configuration's own in a log's identity: what the model is, whatever it is called."""

EMBEDDER = "embedder_weights"
"""The same for the model that near-copies are recognised by."""
SUFFIXES = "suffixes_digest"
"""The same for the contexts that were found in the source."""
LATENTS = "latents"
"""Key for how the arm's latents and inversions are stored: `engine.cache_keys.LATENTS_STORED`."""
DIGESTS = (WEIGHTS, EMBEDDER, CONCEPTS, SUFFIXES, LATENTS)
CONCEPTS_FROM = "learn.concepts"
GIVEN = "given"
"""Stands in the log for the URL of concepts that the user gave."""


@dataclass
class Run:
    """An output with its plan and its log; `history` grows as the run goes on."""

    storage: Storage
    config: Config
    source: Source
    plan: Plan
    """Of the newest season (`engine.growth`)."""
    history: History
    grown: Source | None = None
    """The source with images that the log does not know yet: they are a season of their own, once this one is over."""
    writer: LogWriter = field(init=False)
    """Appends to the log in this process's name."""
    _swept: bool = field(init=False, default=False)
    _plans: dict[int, Plan] = field(init=False, default_factory=dict)
    """Of earlier seasons."""

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
        learned = learned_of(self.history, 0) or self.plan.learned
        digests = {EMBEDDER: self.plan.embedder, CONCEPTS: learned.concepts, SUFFIXES: learned.suffixes_digest}
        present: dict[str, Any] = {key: value for key, value in digests.items() if value}
        kind = {CONCEPTS_FROM: concepts_from(self.config)}
        if self.plan.arm.takes != "nothing":
            present[LATENTS] = LATENTS_STORED
        return {**self.config.identity(), **kind, WEIGHTS: self.plan.weights, **present}

    def learn(self, learned: Learned) -> None:
        """Make the plan anew with what was learned; only before the log's first entry."""
        assert self.history.version < 0
        plan = self.plan
        self.plan = Plan(plan.config, plan.source, plan.weights, plan.embedder, learned)

    def follow_log(self, scanned: Source) -> None:
        """Set source and plan to those of the newest season; what the log does not know of what was scanned is grown.

        Raises OutputError when an image is gone, or a manifest.
        """
        first, self.source, self.grown = self.history.opening, scanned, None
        if first is not None and (self.history.growths or first.source != scanned.digest):
            self.source, self.grown = fitted(known_source(self.storage, self.history), scanned, self.storage.url)
        self.plan = plan_of(self.plan, self.history, self.source)
        self._plans.clear()

    def plan_of(self, wave: log.WaveEntry) -> Plan:
        """The plan that a wave of the log is of."""
        season = self.history.season(wave.wave)
        if season == len(self.history.growths):
            return self.plan
        if season not in self._plans:
            self._plans[season] = plan_of(self.plan, self.history, self.source, season)
        return self._plans[season]

    def plan_ahead(self) -> Plan:
        """The plan of the grown source, but for what is still to be learned of it."""
        assert self.grown is not None
        plan, tried = self.plan, tuple(self.waves[-1].stops) if self.waves else ()
        growths = [*plan.growths, Growth(tuple(len(of) for of in self.source.by_class), tried)]
        return Plan(plan.config, self.grown, plan.weights, plan.embedder, plan.learned, growths)

    @property
    def first_source(self) -> str:
        """Digest of the images that the data set was begun with."""
        first = self.history.opening
        return first.source if first is not None else self.source.digest

    def begin_season(self, entry: log.GrowthEntry) -> None:
        """Go over to the grown source. Raises FencedError when another driver has gone on meanwhile."""
        assert self.grown is not None
        self.storage.put_once(layout.source_manifest(self.grown.digest), self.grown.to_parquet())
        self.writer.append(entry)
        self.source, self.grown = self.grown, None
        self.plan = plan_of(self.plan, self.history, self.source)
        self._plans.clear()

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
        plan = self.plan
        return next_wave(plan, self.waves, self.kept(), plan.targets(), plan.limits(), self._season_to_begin)

    @property
    def targets(self) -> list[int]:
        """Rows wanted per class, as the log says."""
        wanted = self.waves[-1].targets if self.waves else []
        return [*wanted, *[0] * (len(self.source.classes) - len(wanted))]

    @property
    def _season_to_begin(self) -> bool:
        growths = self.history.growths
        return bool(growths) and growths[-1].waves == len(self.waves)

    @property
    def complete(self) -> bool:
        """Whether all is decided that is wanted of the images that the log knows."""
        return bool(self.waves) and self.open_wave() is None and self.next_wave() is None

    def sweep(self) -> None:
        """Remove what the log has decided, and once what a dead process did not finish: this one finishes its own."""
        if not self._swept:
            self.writer.mend()
            for name in half_written(self.storage):
                self.storage.remove(name)
            self._swept = True
        for name in decided_already(self.storage, self.history):
            self.storage.remove(name)


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


def plan_of(plan: Plan, history: History, source: Source, season: int | None = None) -> Plan:
    """The plan of a season, by default the newest; `source` is that of the newest, `plan` is of any."""
    season = len(history.growths) if season is None else season
    of_season, growths = source_of(history, source, season), growths_of(history, source, season)
    return Plan(plan.config, of_season, plan.weights, plan.embedder, learned_of(history, season), growths)


def known_source(storage: Storage, history: History) -> Source:
    """The images of the newest season, where they were then; whether they still are, nobody has looked.

    Raises OutputError when their manifest is gone.
    """
    newest = history.growths[-1] if history.growths else history.opening
    assert newest is not None
    manifest = storage.read_or_none(layout.source_manifest(newest.source))
    if manifest is None:
        raise OutputError(f"{storage.url}: {layout.source_manifest(newest.source)} is missing; restore it from a copy")
    return Source.from_parquet(newest.origin, newest.classes, manifest)
