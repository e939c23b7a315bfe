"""Large files are read once to be named, and again whenever they may be others."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from diffii import known_digests
from diffii.hashing import file_sha256, sha256
from diffii.known_digests import known_sha256
from diffii.model_cache import CACHE_VARIABLE


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was read whole, on a machine that remembers files of four bytes or more."""
    counted = Counter[str]()

    def read(path: Path) -> str:
        counted[path.name] += 1
        return file_sha256(path)

    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(known_digests, "LARGE", 4)
    monkeypatch.setattr(known_digests, "file_sha256", read)
    return counted


def test_a_large_file_is_read_once(tmp_path: Path, reads: Counter[str]) -> None:
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(b"weights")
    small.write_bytes(b"{}")
    for _ in range(3):
        assert known_sha256(large) == sha256(b"weights")
        assert known_sha256(small) == sha256(b"{}")
    assert reads == {"large": 1, "small": 3}


def test_another_file_of_the_same_size_and_time_is_another(tmp_path: Path, reads: Counter[str]) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"weights")
    known_sha256(path)
    status = path.stat()
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert known_sha256(path) == sha256(b"WEIGHTS")


def test_a_link_is_what_it_leads_to(tmp_path: Path, reads: Counter[str]) -> None:
    """The hub's cache has links in its snapshots."""
    link = tmp_path / "link"
    for content in (b"weights", b"others"):
        (tmp_path / content.decode()).write_bytes(content)
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / content.decode())
        assert known_sha256(link) == sha256(content)


@pytest.mark.parametrize("damage", [b"", b"0123", b"\xff" * 64])
def test_a_torn_memory_is_not_believed(tmp_path: Path, reads: Counter[str], damage: bytes) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"weights")
    known_sha256(path)
    (memory,) = (tmp_path / "cache" / "digests").iterdir()
    memory.write_bytes(damage)
    assert known_sha256(path) == sha256(b"weights")
    assert memory.read_text() == sha256(b"weights")


def test_a_machine_that_cannot_remember_reads_again(tmp_path: Path, reads: Counter[str]) -> None:
    (tmp_path / "cache").write_bytes(b"no folder")
    path = tmp_path / "model"
    path.write_bytes(b"weights")
    assert {known_sha256(path) for _ in range(2)} == {sha256(b"weights")}
    assert reads == {"model": 2}
