"""Storage that fails for a while is waited for; what will not pass by itself is said at once."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffii.dataset import patience
from diffii.dataset.patience import PAUSES, patiently
from diffii.dataset.storage import Storage
from diffii.errors import OutputError


class BotoCoreError(Exception):
    """As an S3 client raises when a connection cannot be made: no OSError."""


BotoCoreError.__module__ = "botocore.exceptions"


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, without making them."""
    made: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", made.append)
    return made


def failing(times: int, error: Exception) -> Callable[[], str]:
    left = [times]

    def call() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return "done"

    return call


@pytest.mark.parametrize("error", [OSError(errno.EBUSY, "slow down"), TimeoutError("late"), BotoCoreError("no route")])
def test_what_passes_is_waited_for(error: Exception, pauses: list[float]) -> None:
    assert patiently("x", True, failing(len(PAUSES), error)) == "done"
    assert pauses == list(PAUSES)


def test_what_does_not_pass_ends_with_the_name_and_the_mend(pauses: list[float]) -> None:
    with pytest.raises(OutputError, match=r"s3://b/x: storage failed 5 times over, last with OSError.*nothing is lost"):
        patiently("s3://b/x", True, failing(99, OSError(errno.EBUSY, "slow down")))
    assert pauses == list(PAUSES)


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError("x"), FileExistsError("x"), ValueError("a bug"), IsADirectoryError("x")],
)
def test_answers_and_bugs_are_not_waited_for(error: Exception, pauses: list[float]) -> None:
    with pytest.raises(type(error)):
        patiently("x", True, failing(1, error))
    assert pauses == []


def test_a_missing_right_is_said_at_once(pauses: list[float]) -> None:
    with pytest.raises(OutputError, match=r"s3://b/x: storage fails: .*nothing is lost"):
        patiently("s3://b/x", True, failing(1, PermissionError("no right to write")))
    assert pauses == []


@pytest.mark.parametrize(("code", "waits"), [(errno.ENOSPC, 0), (errno.EROFS, 0), (errno.ESTALE, 1), (errno.EIO, 1)])
def test_a_full_disk_stays_full_and_a_network_disk_comes_back(code: int, waits: int, pauses: list[float]) -> None:
    error = OSError(code, "no room")
    if waits:
        assert patiently("x", False, failing(1, error)) == "done"
    else:
        with pytest.raises(OutputError, match="s3://b/x: storage fails: no room; nothing is lost"):
            patiently("s3://b/x", False, failing(1, error))
    assert len(pauses) == waits


def test_every_call_of_storage_is_patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(str(tmp_path))
    storage.is_local = False  # an object store: the calls of fsspec alone
    failed: set[str] = set()

    def flaky(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def once(*arguments: Any, **more: Any) -> Any:
            if name not in failed:
                failed.add(name)
                raise OSError(errno.EBUSY, "slow down")
            return call(*arguments, **more)

        return once

    for name in ("cat_file", "pipe_file", "ls", "find", "rm_file", "open"):
        monkeypatch.setattr(storage.fs, name, flaky(name, getattr(storage.fs, name)))
    storage.put("a", b"1")
    assert storage.read("a") == b"1"
    with storage.open("a") as file:
        assert file.read() == b"1"
    assert storage.names() == ["a"]
    assert [name for name, _ in storage.find("")] == ["a"]
    storage.remove("a")
    assert failed == {"cat_file", "pipe_file", "ls", "find", "rm_file", "open"}
    assert patience.PAUSES == PAUSES
