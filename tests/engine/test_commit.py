"""The committer: whatever the order of arrival, the log, the shards and their bytes are the same."""

from __future__ import annotations

import random
import secrets
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from diffii.dataset import layout, log, staged
from diffii.dataset.history import iter_entries, read_log
from diffii.dataset.storage import Storage
from diffii.errors import FencedError, OutputError
from diffii.hashing import sha256
from engine.append import LogWriter
from engine.commit import Committer
from engine.pack import PackOrder, pack

CHUNKS, ROWS = 9, 4
CLASSES = ("a/b", "été")


def stage(storage: Storage, chunk: int, lost: dict[int, str] | None = None) -> None:
    rows = []
    for k in range(ROWS):
        image = f"image {chunk}/{k}".encode()
        outcome = (lost or {}).get(k, staged.KEPT)
        rows.append(
            {
                "sample_id": f"{chunk:02d}{k:02d}",
                "outcome": outcome,
                "reason": "" if outcome == staged.KEPT else "why",
                "label": k % 2,
                "ordinal": chunk * 2 + k // 2,
                "image_sha256": sha256(image),
                "phash": bytes(8),
                "phi": 0.5,
                "theta": 1.5,
                "seed": 2**64 - 1,
                "parent_a": "a",
                "parent_b": "b",
                "suffix": "on grass",
                "recipe": "{}",
                "image": image,
            }
        )
    assert storage.put_once(layout.staged_chunk(0, chunk), staged.encode(rows, "cpu"))


def inline(order: PackOrder) -> Future[log.Shard]:
    future: Future[log.Shard] = Future()
    future.set_result(pack(order))
    return future


def committer(storage: Storage, packer=inline) -> Committer:
    return Committer(
        storage,
        LogWriter(storage, read_log(storage), secrets.token_hex(4)),
        0,
        CHUNKS,
        shard_rows=10,
        classes=CLASSES,
        extension="png",
        packer=packer,
    )


def run(folder: Path, order: list[int], lost: dict[int, dict[int, str]] | None = None) -> list[log.CommitEntry]:
    storage = Storage(str(folder))
    for chunk in order:
        stage(storage, chunk, (lost or {}).get(chunk))
    work = committer(storage)
    for chunk in order:
        work.staged(chunk)
    work.finish()
    return [entry for entry in list(iter_entries(storage)) if isinstance(entry, log.CommitEntry)]


def test_order_of_arrival_changes_nothing(tmp_path: Path) -> None:
    expected = run(tmp_path / "in-order", list(range(CHUNKS)))
    orders = [list(reversed(range(CHUNKS)))] + [random.Random(k).sample(range(CHUNKS), CHUNKS) for k in range(8)]
    for number, order in enumerate(orders):
        assert run(tmp_path / str(number), order) == expected
    assert [(entry.first, entry.last, entry.kept) for entry in expected] == [(0, 2, 12), (3, 5, 12), (6, 8, 12)]
    shards = [entry.shard.name for entry in expected if entry.shard]
    assert shards == ["data/train-00000.parquet", "data/train-00001.parquet", "data/train-00002.parquet"]
    assert expected[0].kept_per_class == {"0": 6, "1": 6}


def test_rows_that_are_lost_are_named_and_not_published(tmp_path: Path) -> None:
    lost = {0: {1: staged.REJECTED}, 4: dict.fromkeys(range(ROWS), staged.POISONED)}
    entries = run(tmp_path, list(range(CHUNKS)), lost)
    assert entries[0].lost == {"rejected": {"1": "why"}}
    assert sum(entry.kept for entry in entries) == CHUNKS * ROWS - 5
    assert sum(entry.count("poisoned") for entry in entries) == 4
    assert sum(entry.shard.rows for entry in entries if entry.shard) == CHUNKS * ROWS - 5


def test_a_wave_in_which_nothing_is_kept_has_entries_and_no_shard(tmp_path: Path) -> None:
    every = {chunk: dict.fromkeys(range(ROWS), staged.REJECTED) for chunk in range(CHUNKS)}
    (entry,) = run(tmp_path, list(range(CHUNKS)), every)
    assert (entry.first, entry.last, entry.kept, entry.shard) == (0, CHUNKS - 1, 0, None)


def test_staged_chunks_are_removed_once_they_are_published(tmp_path: Path) -> None:
    run(tmp_path, list(range(CHUNKS)))
    assert Storage(str(tmp_path)).find(layout.STAGING) == []


def test_going_on_after_a_stop_anywhere_gives_the_same(tmp_path: Path) -> None:
    expected = run(tmp_path / "quiet", list(range(CHUNKS)))
    for stop in range(CHUNKS):
        storage = Storage(str(tmp_path / f"stop-{stop}"))
        for chunk in range(CHUNKS):
            stage(storage, chunk)
        first = committer(storage)
        for chunk in range(stop):
            first.staged(chunk)
        second = committer(storage)
        for chunk in range(CHUNKS):
            second.staged(chunk)
        second.finish()
        assert list(iter_entries(storage)) == expected


def test_a_shard_of_a_dead_run_is_adopted_and_a_foreign_one_refused(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    for chunk in range(CHUNKS):
        stage(storage, chunk)
    order = PackOrder(url=storage.url, index=7, wave=0, first=0, last=1, lost_rows=(), classes=CLASSES, extension="png")
    assert pack(order) == pack(order)
    storage.put(layout.shard(7), b"somebody else's")
    with pytest.raises(OutputError, match=r"data/train-00007.parquet exists and is not what this run would write"):
        pack(order)


def test_a_second_driver_is_fenced(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    for chunk in range(CHUNKS):
        stage(storage, chunk)
    slow, fast = committer(storage), committer(storage)
    for chunk in range(3):
        fast.staged(chunk)
    for chunk in range(3, CHUNKS):
        fast.staged(chunk)
    with pytest.raises(FencedError, match="another process commits this run"):
        for chunk in range(CHUNKS):
            slow.staged(chunk)
    fast.finish()
    assert len(list(iter_entries(storage))) == 3


def test_the_first_writer_of_a_log_entry_wins(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    wave = log.WaveEntry(wave=0, starts=[0], stops=[1], targets=[1], limits=[2])
    first, second = (LogWriter(storage, read_log(storage), name) for name in ("first", "second"))
    first.append(wave)
    with pytest.raises(FencedError, match="log entry 0 first"):
        second.append(wave)
    assert second.history.version == -1


def test_entries_wait_for_a_slow_packer_and_keep_their_order(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    for chunk in range(CHUNKS):
        stage(storage, chunk)
    gate: Future[None] = Future()
    with ThreadPoolExecutor(3) as pool:

        def packer(order: PackOrder) -> Future[log.Shard]:
            def work() -> log.Shard:
                if order.first == 0:
                    gate.result()
                return pack(order)

            return pool.submit(work)

        work = committer(storage, packer=packer)
        for chunk in range(CHUNKS):
            work.staged(chunk)
        assert list(iter_entries(storage)) == [], "the first shard is not there, so no later one may be in the log"
        gate.set_result(None)
        work.finish()
    assert [entry.first for entry in list(iter_entries(storage)) if isinstance(entry, log.CommitEntry)] == [0, 3, 6]


def test_a_chunk_that_never_comes_is_said(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    stage(storage, 0)
    work = committer(storage)
    work.staged(0)
    with pytest.raises(OutputError, match="chunk 1 of wave 0 was never staged"):
        work.finish()


def test_an_entry_whose_answer_was_lost_is_known_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(str(tmp_path))
    writer = LogWriter(storage, read_log(storage), "me")
    put_once = storage.put_once

    def lost_answer(name: str, data: bytes) -> bool:
        put_once(name, data)
        return put_once(name, data)  # the client's own second try finds the first one's file

    monkeypatch.setattr(storage, "put_once", lost_answer)
    writer.append(log.WaveEntry(wave=0, starts=[0], stops=[1], targets=[1], limits=[2]))
    assert writer.history.version == 0
