"""The log that says what a data set is: read back as written, or refused with the entry named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diffii.dataset import layout, log
from diffii.dataset.history import iter_entries, read_log
from diffii.dataset.storage import Storage
from diffii.errors import OutputError

OPEN = log.OpenEntry(
    identity={"prompts.class_names": {"été": "summer"}, "generation.split": 0.3, "prompts.suffixes": ["on a branch"]},
    source="ab" * 32,
    classes=["a/b", ".", "été"],
    model="garments",
)
WAVE = log.WaveEntry(wave=0, starts=[0, 0, 0], stops=[25, 20, 5], targets=[25, 20, 5], limits=[])
COMMIT = log.CommitEntry(
    wave=0,
    first=0,
    last=1,
    rows=50,
    lost={"rejected": {"3": "near copy of x"}, "poisoned": {"7": "NaN", "8": "NaN"}},
    kept_per_class={"0": 24, "1": 18, "2": 5},
    shard=log.Shard(
        name="data/train-00000.parquet",
        rows=47,
        bytes=1234,
        sha256="cd" * 32,
        sidecar="_diffii/shards/00000.parquet",
        sidecar_sha256="ef" * 32,
    ),
    fingerprints=["cpu fp32"],
)
ALL_LOST = log.CommitEntry(wave=1, first=0, last=0, rows=1, lost={"rejected": {"0": "near copy of y"}})
CALIBRATION = log.CalibrationEntry(record={"thresholds": [[1, 2], [3, 4]], "pooled": 5})
ENTRIES: list[log.Entry] = [OPEN, WAVE, COMMIT, ALL_LOST]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage(str(tmp_path))
    for version, entry in enumerate(ENTRIES):
        assert storage.put_once(layout.log_entry(version), log.encode(entry))
    return storage


def read(storage: Storage, version: int | None = None) -> list[log.Entry]:
    return list(iter_entries(storage, version))


def changed(entry: log.Entry, **fields: Any) -> bytes:
    return json.dumps(json.loads(log.encode(entry)) | fields).encode()


@pytest.mark.parametrize("entry", [*ENTRIES, CALIBRATION], ids=lambda entry: entry.kind)
def test_an_entry_is_read_back_as_written(entry: log.Entry) -> None:
    data = log.encode(entry)
    again = log.decode(data, "x")
    assert again == entry and type(again) is type(entry)
    assert log.encode(again) == data


def test_an_entry_is_text_that_people_can_read() -> None:
    text = log.encode(OPEN).decode()
    assert '"été"' in text and text.endswith("}\n") and text.count("\n") > 10
    assert json.loads(text)["kind"] == "open"


def test_a_commit_counts_its_rows() -> None:
    assert (COMMIT.kept, COMMIT.count("rejected"), COMMIT.count("poisoned")) == (47, 1, 2)
    assert (ALL_LOST.kept, ALL_LOST.count("poisoned"), ALL_LOST.shard) == (0, 0, None)
    shard = log.Shard(name="data/x", rows=1, bytes=1, sha256="")
    assert log.with_shard(ALL_LOST, shard).shard == shard


@pytest.mark.parametrize(
    "data",
    [
        b"",
        log.encode(COMMIT)[:-40],
        b"\xff\xfe\x00",
        b"[]",
        b"{}",
        b"null",
        b'{"kind": "wave"}',
        changed(WAVE, surprise=1),
        changed(COMMIT, shard={"name": "data/x"}),
        changed(COMMIT, shard=5),
        changed(OPEN, format="two"),
        changed(CALIBRATION, surprise=1),
    ],
)
def test_a_damaged_entry_is_named(data: bytes) -> None:
    with pytest.raises(OutputError, match=r"log/7\.json is not a log entry of diffii") as caught:
        log.decode(data, "log/7.json")
    assert "\n" not in str(caught.value)


def test_an_entry_of_a_newer_diffii_is_refused() -> None:
    with pytest.raises(OutputError, match=rf"log/0\.json has log format {log.LOG_FORMAT + 1}: update diffii"):
        log.decode(changed(OPEN, format=log.LOG_FORMAT + 1), "log/0.json")
    with pytest.raises(OutputError, match=r"log/9\.json is a log entry of the unknown kind 'merge': update diffii"):
        log.decode(changed(WAVE, kind="merge"), "log/9.json")


def test_the_log_is_read_oldest_first(storage: Storage) -> None:
    assert read(storage) == ENTRIES


def test_the_log_as_of_a_version_ends_there(storage: Storage) -> None:
    for version in range(len(ENTRIES)):
        assert read(storage, version) == ENTRIES[: version + 1]


def test_there_may_be_no_log(tmp_path: Path) -> None:
    assert read_log(Storage(str(tmp_path / "new"))).version == -1


def test_order_is_by_number_beyond_nine(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    for wave in range(12):
        entry = log.WaveEntry(wave=wave, starts=[], stops=[], targets=[], limits=[])
        storage.put_once(layout.log_entry(wave), log.encode(entry))
    waves = [entry.wave for entry in read(storage) if isinstance(entry, log.WaveEntry)]
    assert waves == list(range(12))


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_gap_is_refused(storage: Storage, missing: int) -> None:
    storage.remove(layout.log_entry(missing))
    with pytest.raises(OutputError, match=f"log entry {missing} is missing"):
        read_log(storage)


def test_a_gap_above_the_version_asked_for_does_not_matter(storage: Storage) -> None:
    storage.remove(layout.log_entry(2))
    assert read(storage, 1) == ENTRIES[:2]
    with pytest.raises(OutputError, match="log entry 2 is missing"):
        read_log(storage, 2)


def test_a_damaged_entry_of_the_log_is_named(storage: Storage) -> None:
    storage.put(layout.log_entry(2), log.encode(COMMIT)[:100])
    with pytest.raises(OutputError, match=layout.log_entry(2)):
        read_log(storage)
    assert read(storage, 1) == ENTRIES[:2]


def test_files_that_are_no_entries_are_passed_over(storage: Storage) -> None:
    storage.put(f"{layout.LOG}/.tmp-0123", b"half")
    assert read(storage) == ENTRIES


@pytest.mark.parametrize("version", [-1, 4, 99])
def test_a_version_that_is_none_is_refused(storage: Storage, version: int) -> None:
    with pytest.raises(OutputError, match=r"has no version .* its versions are 0 to 3"):
        read_log(storage, version)
