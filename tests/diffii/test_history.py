"""A log adds up to the same whether it is read entry by entry or from checkpoints, whatever its length."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from diffii.dataset import checkpoints, layout, log
from diffii.dataset.history import History, iter_entries, newest_version, read_log
from diffii.dataset.layout import LOG_PAGE
from diffii.dataset.storage import Storage
from diffii.errors import OutputError

FOLDER = 500
"""Entries of a folder in these tests: the real number is ten thousand."""


def a_log(length: int) -> list[log.Entry]:
    """A log as a long run writes it: waves that begin, chunks that are lost, entries without a shard."""
    draw = random.Random(7)
    entries: list[log.Entry] = [
        log.OpenEntry(identity={"generation.split": 0.3}, source="ab" * 32, classes=["a/b", "été"], model="garments"),
        log.WaveEntry(wave=0, starts=[0, 0], stops=[9, 9], targets=[9, 9], limits=[18, 18]),
        log.CalibrationEntry(record={"pooled": 7}),
    ]
    wave, chunk, shards = 0, 0, 0
    while len(entries) < length:
        if draw.random() < 0.02:
            wave, chunk = wave + 1, 0
            entries.append(log.WaveEntry(wave=wave, starts=[9, 9], stops=[12, 9], targets=[9, 9], limits=[18, 18]))
            continue
        rejected = {str(row): draw.choice(["near-copy", "constant"]) for row in range(draw.randrange(3))}
        poisoned = {"9": "RuntimeError: NaN"} if draw.random() < 0.1 else {}
        lost = {key: rows for key, rows in (("rejected", rejected), ("poisoned", poisoned)) if rows}
        kept = {} if draw.random() < 0.1 else {"0": draw.randrange(1, 9), "1": draw.randrange(1, 9)}
        shard = None
        if kept:
            shard = log.Shard(
                name=layout.shard(shards),
                rows=sum(kept.values()),
                bytes=draw.randrange(10**9),
                sha256=f"{draw.randrange(2**256):064x}",
                sidecar=layout.sidecar(shards),
                sidecar_sha256=f"{draw.randrange(2**256):064x}",
            )
            shards += 1
        entries.append(
            log.CommitEntry(
                wave=wave,
                first=chunk,
                last=chunk + 2,
                rows=sum(kept.values()) + len(rejected) + len(poisoned),
                lost=lost,
                kept_per_class=kept,
                shard=shard,
                fingerprints=["cpu fp32"],
            )
        )
        chunk += 3
    return entries


@pytest.fixture(scope="module")
def entries() -> list[log.Entry]:
    return a_log(2 * FOLDER + 2 * LOG_PAGE + 33)


@pytest.fixture(scope="module")
def grown(entries: list[log.Entry], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with its checkpoints, as an appending driver leaves it."""
    folder = tmp_path_factory.mktemp("log")
    storage = Storage(str(folder))
    with pytest.MonkeyPatch.context() as patch:
        _small_folders(patch)
        for version, entry in enumerate(entries):
            path = folder / layout.log_entry(version)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(log.encode(entry))
            checkpoints.write_due(storage, version)
    return folder


@pytest.fixture(autouse=True)
def small_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    _small_folders(monkeypatch)


def _small_folders(patch: pytest.MonkeyPatch) -> None:
    for module in ("layout", "checkpoints", "history"):
        patch.setattr(f"diffii.dataset.{module}.LOG_FOLDER", FOLDER)


def added(entries: list[log.Entry]) -> History:
    history = History()
    for entry in entries:
        history.add(entry)
    return history


def facts(history: History) -> dict[str, object]:
    names = ("version", "opening", "waves", "calibration", "rows", "bytes", "commits", "kept", "kept_per_class", "lost")
    found = {name: getattr(history, name) for name in names}
    decided = [history.next_chunk(wave.wave) for wave in history.waves]
    shards = history.shards
    each = [shards[number] for number in range(len(shards))]
    assert list(shards) == each == shards[:]
    return found | {
        "fingerprints": history.fingerprints,
        "decided": decided,
        "shards": each,
        "digest": shards.digest,
        "ends": shards.ends().tolist(),
    }


def test_reading_checkpoints_gives_what_adding_entries_gives(grown: Path, entries: list[log.Entry]) -> None:
    history = read_log(Storage(str(grown)))
    assert facts(history) == facts(added(entries))
    assert history.in_checkpoints == 2 * FOLDER + 2 * LOG_PAGE


@pytest.mark.parametrize("version", [0, 1, 99, 100, 250, FOLDER - 1, FOLDER, FOLDER + 150, 2 * FOLDER, 1232])
def test_every_earlier_version_is_what_it_was(grown: Path, entries: list[log.Entry], version: int) -> None:
    assert facts(read_log(Storage(str(grown)), version)) == facts(added(entries[: version + 1]))
    assert list(iter_entries(Storage(str(grown)), version)) == entries[: version + 1]


def test_a_history_that_was_read_goes_on_as_one_that_grew(grown: Path, entries: list[log.Entry]) -> None:
    history = read_log(Storage(str(grown)), 700)
    for entry in entries[701:]:
        history.add(entry)
    assert facts(history) == facts(added(entries))


def test_few_files_are_read_whatever_the_length(grown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, read = Storage(str(grown)), []
    original = storage.read_or_none
    monkeypatch.setattr(storage, "read_or_none", lambda name: read.append(name) or original(name))
    read_log(storage)
    assert len(read) == 2 + 2 + 33, "two folders, two pages, thirty-three entries"
    read.clear()
    assert newest_version(storage) == 1232
    assert read == []


@pytest.mark.parametrize("damage", [b"", b"PAR1 not", None])
def test_a_checkpoint_that_is_damaged_or_gone_costs_time_only(
    grown: Path, entries: list[log.Entry], tmp_path: Path, damage: bytes | None
) -> None:
    storage = Storage(str(shutil.copytree(grown, tmp_path / "copy")))
    harmed = [layout.log_folder_checkpoint(0), layout.log_checkpoint(200), layout.log_checkpoint(2 * FOLDER)]
    for name in harmed:
        storage.remove(name)
        if damage is not None:
            storage.put(name, damage)
    assert facts(read_log(storage)) == facts(added(entries))
    assert sorted(checkpoints.faulty(storage, len(entries) - 1)) == sorted(harmed)
    for name in harmed:
        storage.remove(name)
    checkpoints.write_missing(storage, len(entries) - 1, 0)
    assert checkpoints.faulty(storage, len(entries) - 1) == []
    assert all(storage.read(name) == Storage(str(grown)).read(name) for name in harmed)


def test_a_checkpoint_that_lies_is_found(grown: Path, entries: list[log.Entry], tmp_path: Path) -> None:
    storage = Storage(str(shutil.copytree(grown, tmp_path / "copy")))
    name = layout.log_checkpoint(300)
    storage.put(name, storage.read(layout.log_checkpoint(100)))
    assert checkpoints.faulty(storage, len(entries) - 1) == [name]


def test_an_entry_missing_in_the_last_folder_is_refused(grown: Path, tmp_path: Path) -> None:
    storage = Storage(str(shutil.copytree(grown, tmp_path / "copy")))
    storage.remove(layout.log_entry(1100))
    with pytest.raises(OutputError, match="log entry 1100 is missing"):
        read_log(storage)
    assert read_log(storage, 1099).version == 1099


def test_no_log_is_an_empty_history(tmp_path: Path) -> None:
    history = read_log(Storage(str(tmp_path)))
    assert (history.version, history.opening, len(history.shards), history.kept) == (-1, None, 0, 0)


def test_a_listing_that_passes_over_an_entry_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a disk's listing may that is read while two entries are written."""
    storage = Storage(str(tmp_path))
    for version, entry in enumerate(a_log(12)):
        storage.put_once(layout.log_entry(version), log.encode(entry))
    names = storage.names
    monkeypatch.setattr(
        storage, "names", lambda folder: [name for name in names(folder) if not name.endswith("3.json")]
    )
    assert newest_version(storage) == 11
    storage.remove(layout.log_entry(3))
    with pytest.raises(OutputError, match="log entry 3 is missing"):
        newest_version(storage)
