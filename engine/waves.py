"""Waves: generate what the plan calls for, commit it in plan order, and refill what was rejected, until all is decided.

Knows neither Ray nor a model: who makes chunks, and who packs them, is given. So the same code runs on a cluster and in
a simulation that crashes it wherever it can be crashed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from diffii.dataset import layout, log
from diffii.dataset.patience import Meter
from diffii.images import extension
from engine.card_of_run import write_card
from engine.commit import Committer, Packer
from engine.counters import GENERATE, Counters
from engine.near_copies import NearCopies
from engine.progress import Progress
from engine.run import Run, begin

Maker = Callable[[log.WaveEntry, list[int]], Iterator[dict[str, Any]]]
"""Makes the chunks of a wave and stages them, in any order; of each it tells `chunk`, `rows` and `lost`,
and may tell what `Counters.made` counts."""

Follower = Callable[[log.CommitEntry], None]


def run_waves(
    run: Run,
    make: Maker,
    packer: Packer,
    progress: Progress,
    near_copies: NearCopies | None,
    counters: Counters | None = None,
    follow: Follower = lambda entry: None,
) -> None:
    """Go on with the wave that is open, and with what comes after it, until nothing is called for. `begin` was called.

    `follow` hears of every commit, once the log has it.

    Raises OutputError, FencedError, and what `make` raises.
    """
    counters = counters or Counters()
    while (wave := run.open_wave()) is not None:
        _commit_wave(run, wave, make, packer, progress, near_copies, counters, follow)
        begin(run)


def _commit_wave(
    run: Run,
    wave: log.WaveEntry,
    make: Maker,
    packer: Packer,
    progress: Progress,
    near_copies: NearCopies | None,
    counters: Counters,
    follow: Follower,
) -> None:
    first, chunks = run.history.next_chunk(wave.wave), run.plan.chunk_count(wave)
    already = _staged_chunks(run, wave.wave)
    todo = [chunk for chunk in range(first, chunks) if chunk not in already]
    rows, size = run.plan.row_count(wave), run.config.commit.chunk_size
    left = len(todo) * size
    if chunks - 1 in todo[-1:]:
        left -= chunks * size - rows  # the last chunk may be short
    progress.stage(GENERATE, rows, rows - left)

    calls = Meter()

    def committed(entry: log.CommitEntry) -> None:
        write_card(run)
        counters.stored("driver", calls.read())
        progress.committed(entry.kept, entry.shard.name if entry.shard else None)
        follow(entry)

    committer = Committer(
        run.storage,
        run.writer,
        wave.wave,
        chunks,
        shard_rows=run.config.output.shard_rows,
        classes=run.source.classes,
        extension=extension(run.config.output.encoding),
        packer=packer,
        near_copies=near_copies,
        on_commit=committed,
        counters=counters,
    )
    committer.staged(*already)
    if todo:
        for result in make(wave, todo):
            counters.made(result)
            progress.advance(result["rows"], result["lost"])
            committer.staged(result["chunk"])
    committer.finish()


def _staged_chunks(run: Run, wave: int) -> set[int]:
    numbers = map(layout.staged_number, run.storage.names(layout.staged_wave(wave)))
    return {number for number in numbers if number is not None}
