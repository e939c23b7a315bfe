"""`expand`: the whole way from labelled images to committed shards, and on from wherever an earlier run stopped.

Ray must be running; who started it, and where, is the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import ray
import torch

from actors.failures import task_retries
from actors.generator import Generator
from diffii.attention import choose
from diffii.dataset import layout, log
from diffii.dataset.patience import Tally
from engine.batch_stage import settle_batches
from engine.commit import Packer
from engine.config import OFF, Config
from engine.copy_thresholds import Calibration
from engine.counters import Counted, Counters
from engine.events import Events, Told
from engine.export.along import Along, PartMaker
from engine.export.parts import make_part
from engine.fork import Fork
from engine.heartbeat import driving
from engine.holdout import leak_report, read_holdout, sign_tasks
from engine.inversions import invert_missing
from engine.lazy_rows import ChunkRows, tasks
from engine.learned import Learned
from engine.metrics import exported
from engine.near_copies import NearCopies
from engine.near_copy_index import build_index, calibrate_run, calibrate_season
from engine.pack import pack_counted
from engine.prepare import prepare, refresh
from engine.progress import Progress, Silent
from engine.publish import publish
from engine.pulse import Pulse
from engine.run import Run, begin
from engine.scan_tasks import look_in_ray
from engine.season import begin_season, tell_growth
from engine.settle import settle
from engine.source import Source
from engine.source_notes import keep_source_notes, tell_source
from engine.specs import generator_spec
from engine.stream import Pool, our_error, stream
from engine.waves import Maker, run_waves

S = TypeVar("S")
T = TypeVar("T")


def expand(
    work: Config | Run,
    progress: Progress | None = None,
    forks: Sequence[str] = (),
    counters: Counters | None = None,
    metrics: Path | None = None,
    events: Events | None = None,
) -> Run:
    """Expand `source.url` into `output.url`; returns when the plan is wholly decided and committed.

    Takes a configuration, or the run that `prepare` made of one; `forks` are the URLs of older data sets, of which is
    taken along what fits. What it counts can be read in `counters`, at Ray's metrics endpoint, and in the file
    `metrics` (Prometheus' text format); what happens is told to `events`. Waits while another driver works on the same
    output. Raises ConfigError, SourceError, ModelError or OutputError before any model loads, FencedError when another
    driver takes the run over.
    """
    counters = counters or Counters()
    events = events or Events()
    pulse = Pulse(Counted(Told(progress or Silent(), events), counters))
    progress = pulse
    run = prepare(work, elsewhere=look_in_ray) if isinstance(work, Config) else work
    events.say("began", output=run.storage.url, source=run.source.url, version=run.history.version)
    pool = pool_of(run.config)
    older = [Fork(run, url) for url in forks]
    if not pool.gpus:
        # Without a GPU in the cluster xformers cannot run: better said now than by an actor after a minute.
        choose(run.config.backbone.attention, torch.device("cpu"))
    tell_source(run, progress)
    tell_growth(run, progress)
    with exported(counters, metrics), driving(run.storage, progress.note, pulse.doing) as waited:
        if waited:
            refresh(run)
        keep_source_notes(run)
        settle_batches(run, pool, progress, forks)
        for old in older:
            old.take_learned()
        settle(run, pool, progress)
        begin(run)
        for old in older:
            old.take_images()
            progress.note(str(old))
        heldout = read_holdout(run, look_in_ray)
        along = _season(run, pool, progress, counters, events, heldout)
        if run.grown is not None:
            along.finish()
            begin_season(run, pool, progress)
            begin(run)
            along = _season(run, pool, progress, counters, events, heldout)
        publish(run)
        along.finish()
        if heldout is not None:
            report = leak_report(run, heldout)
            run.storage.put(layout.LEAKS, report.to_parquet())
            progress.note(report.summary())
    return run


def _season(
    run: Run, pool: Pool, progress: Progress, counters: Counters, events: Events, heldout: Source | None
) -> Along:
    """Make and commit what the known images call for; the copies beside the run, which may still be at work."""
    invert_missing(run, pool, progress, sign_tasks(run, heldout) if heldout else (), counters)
    along = Along(run, exported_in_ray())
    along.begin()
    if run.open_wave() is not None:
        maker, packer = made_in_ray(run, pool, progress, events), packed_in_ray(counters)

        def follow(entry: log.CommitEntry) -> None:
            events.committed(run, entry)
            along.committed(entry)

        run_waves(run, maker, packer, progress, index_of(run), counters, follow)
    return along


def prepare_data_set(run: Run, progress: Progress, learn: bool = True) -> Learned:
    """Caption the images of a run that is not begun, and learn its concepts unless told not to; `expand` goes on.

    Raises ModelError, SourceError or OutputError.
    """
    pulse = Pulse(progress)
    progress = pulse
    with driving(run.storage, progress.note, pulse.doing) as waited:
        if waited:
            refresh(run)
        pool = pool_of(run.config)
        settle_batches(run, pool, progress)
        settle(run, pool, progress, learn)
    return run.plan.learned


def index_of(run: Run) -> NearCopies | None:
    """What new rows are compared with; None when near-copies are kept. Measures and logs the distances at first."""
    if run.config.dedup.embedder == OFF:
        return None
    entry = run.history.calibration
    known = Calibration.from_record(entry.record) if entry is not None else None
    if known is None or len(known.thresholds) < len(run.source.classes):
        known = calibrate_run(run) if known is None else calibrate_season(run, known)
        run.writer.append(log.CalibrationEntry(record=known.to_record()))
    return build_index(run, known)


def pool_of(config: Config) -> Pool:
    """The actor pool of this cluster: one actor per GPU (or its fraction), one per core without a GPU."""
    resources = ray.cluster_resources()
    gpus = config.actors.gpus
    if gpus is None:
        gpus = 1.0 if resources.get("GPU", 0) else 0.0
    if config.actors.max is not None:
        top = config.actors.max
    elif gpus:
        top = max(1, int(resources.get("GPU", 0) / gpus))
    else:
        # Two CPUs stay free for Ray's own small tasks; a local Ray is started with that many more than cores.
        top = max(1, int(resources.get("CPU", 1)) - 2)
    return Pool(min=min(config.actors.min, top), max=max(config.actors.min, top), gpus=gpus)


def made_in_ray(run: Run, pool: Pool, progress: Progress, events: Events | None = None) -> Maker:
    """Chunks made by a pool of generators."""
    config, told = run.config, events or Events()
    retries = task_retries(config.commit.chunk_size, config.generation.micro_batch, config.engine.attempts)

    def make(wave: log.WaveEntry, chunks: list[int]) -> Iterator[dict[str, Any]]:
        made = stream(
            tasks(chunks),
            Generator,
            generator_spec(run),
            pool.at_most(len(chunks)),
            retries=retries,
            progress=progress,
            prepare=ChunkRows(run.plan, wave),
        )
        for result in made:
            told.chunk(wave, result)
            yield result

    return make


def packed_in_ray(counters: Counters) -> Packer:
    """Shards packed by small Ray tasks."""
    # No CPU is asked for: actors may hold them all until the stream ends, and readers should see shards before that.
    packer = ray.remote(num_cpus=0, max_retries=4)(pack_counted)
    return lambda order: _told(packer.remote(order).future(), counters)


def exported_in_ray() -> PartMaker:
    """Parts of copies in other formats, made by Ray tasks."""
    # A whole CPU, unlike packing: a run that is asked for another format late has all its shards to copy at once.
    maker = ray.remote(num_cpus=1, max_retries=4)(make_part)
    return lambda order: _unwrapped(maker.remote(order).future(), lambda record: record)


def _told(made: Future[tuple[log.Shard, Tally]], counters: Counters) -> Future[log.Shard]:
    def shard_of(result: tuple[log.Shard, Tally]) -> log.Shard:
        shard, calls = result
        counters.stored("packers", calls)
        return shard

    return _unwrapped(made, shard_of)


def _unwrapped(made: Future[S], result: Callable[[S], T]) -> Future[T]:
    """What `result` makes of a task's result, in time; an error without Ray's wrapping, whose text is a traceback."""
    told: Future[T] = Future()

    def tell(done: Future[S]) -> None:
        error = done.exception()
        if error is None:
            told.set_result(result(done.result()))
        else:
            told.set_exception(our_error(error) or error)

    made.add_done_callback(tell)
    return told
