"""`expand`: the whole way from labelled images to committed shards, and on from wherever an earlier run stopped.

Ray must be running; who started it, and where, is the caller's business.
"""

from __future__ import annotations

from concurrent.futures import Future

import ray
import torch

from actors.failures import task_retries
from actors.generator import Generator
from diffii.attention import choose
from diffii.dataset import layout, log
from diffii.images import extension
from engine.commit import Committer, PackOrder, pack
from engine.config import Config
from engine.inversions import invert_missing
from engine.near_copies import NearCopies
from engine.near_copy_index import build_index
from engine.plan import Plan
from engine.progress import Progress, Silent
from engine.publish import publish
from engine.run import Run, begin, prepare, write_card
from engine.source import Source
from engine.specs import generator_spec
from engine.stream import Pool, stream


def expand(config: Config, progress: Progress | None = None, source: Source | None = None) -> Run:
    """Expand `config.source.url` into `config.output.url`; returns when the plan is wholly decided and committed.

    Raises ConfigError, SourceError, ModelError or OutputError before any model loads, FencedError when another
    driver takes the run over.
    """
    progress = progress or Silent()
    run = prepare(config, source)
    pool = pool_of(config)
    if not pool.gpus:
        # Without a GPU in the cluster xformers cannot run: better said now than by an actor after a minute.
        choose(run.config.backbone.attention, torch.device("cpu"))
    for skip in run.source.skipped:
        progress.note(f"skipped {skip.where}: {skip.reason}")
    begin(run)
    invert_missing(run, pool, progress)
    wave = run.open_wave()
    near_copies = build_index(run) if wave is not None else None
    while wave is not None:
        _generate(run, wave, pool, progress, near_copies)
        begin(run)
        wave = run.open_wave()
    publish(run)
    return run


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


# -- generation: any order; commit: plan order -----------------------------------------------------------------------


def _generate(run: Run, wave: log.WaveEntry, pool: Pool, progress: Progress, near_copies: NearCopies | None) -> None:
    first, chunks = run.next_chunk(wave.wave), run.plan.chunk_count(wave)
    already = _staged_chunks(run, wave.wave)
    todo = [chunk for chunk in range(first, chunks) if chunk not in already]
    done = run.plan.row_count(wave) - sum(chunk_rows(run.plan, wave, chunk) for chunk in todo)
    progress.stage("generate", run.plan.row_count(wave), done)

    def committed(entry: log.CommitEntry) -> None:
        run.entries.append(entry)
        write_card(run)
        progress.committed(entry.kept, entry.shard.name if entry.shard else None)

    committer = Committer(
        run.storage,
        wave.wave,
        chunks,
        next_chunk=first,
        version=len(run.entries),
        shards=run.shard_count(),
        shard_rows=run.config.output.shard_rows,
        classes=run.source.classes,
        extension=extension(run.config.output.encoding),
        packer=_pack_in_ray,
        near_copies=near_copies,
        on_commit=committed,
    )
    for chunk in sorted(already):
        committer.staged(chunk)
    if todo:
        spec = generator_spec(run.config, run.storage.url)
        config = run.config
        retries = task_retries(config.commit.chunk_size, config.generation.micro_batch, config.engine.attempts)
        tasks = run.plan.table(wave, todo)
        for result in stream(tasks, Generator, spec, pool.at_most(len(todo)), retries=retries):
            progress.advance(result["rows"], result["lost"])
            committer.staged(result["chunk"])
    committer.finish()


def chunk_rows(plan: Plan, wave: log.WaveEntry, chunk: int) -> int:
    size = plan.config.commit.chunk_size
    return min((chunk + 1) * size, plan.row_count(wave)) - chunk * size


def _staged_chunks(run: Run, wave: int) -> set[int]:
    names = run.storage.names(layout.staged_wave(wave))
    numbers = (name.removeprefix("chunk-").removesuffix(".parquet") for name in names)
    return {int(number) for number in numbers if number.isdigit()}


def _pack_in_ray(order: PackOrder) -> Future[log.Shard]:
    # No CPU is asked for: actors may hold them all until the stream ends, and readers should see shards before that.
    return ray.remote(num_cpus=0, max_retries=4)(pack).remote(order).future()
