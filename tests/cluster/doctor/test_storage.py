"""Storage that will not do, as real servers are: one overwrites, one is slow, one refuses."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import fsspec
import pytest
from moto.s3.responses import S3Response

from cluster.doctor import storage as storage_module
from cluster.doctor.finding import Finding
from cluster.doctor.storage import check_storage
from engine.settings import from_flat

pytest_plugins = ["tests.s3"]


def what(found: list[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in found}


def test_good_storage_is_good_and_left_as_it_was(s3_url: str, tmp_path: Path) -> None:
    for url in (s3_url, str(tmp_path / "out")):
        found = check_storage(url)
        assert [finding.what for finding in found] == ["output", "exclusive create"]
        assert all(finding.ok for finding in found), found
        assert "a write takes" in found[0].said
    assert list(tmp_path.iterdir()) == []
    files: Any = fsspec.filesystem("s3")
    files.invalidate_cache()
    assert files.find(s3_url) == []


def test_what_is_in_the_output_stays(tmp_path: Path) -> None:
    (tmp_path / "_diffii").mkdir()
    (tmp_path / "_diffii" / "kept").write_text("kept")
    check_storage(str(tmp_path))
    assert [path.name for path in tmp_path.rglob("*")] == ["_diffii", "kept"]


def test_storage_that_overwrites_is_found(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes no notice of `If-None-Match`, as older ones of other makers do."""
    monkeypatch.setattr(S3Response, "put_object", _without_condition(S3Response.put_object))
    found = what(check_storage(s3_url))
    assert found["output"].ok and not found["exclusive create"].ok
    assert found["exclusive create"].said == "9 of 9 writers of one name won"
    assert "If-None-Match" in found["exclusive create"].mend


def _without_condition(put: Callable[[S3Response], Any]) -> Callable[[S3Response], Any]:
    def put_object(response: S3Response) -> Any:
        headers = {name: value for name, value in response.headers.items() if name.lower() != "if-none-match"}
        with mock.patch.object(response, "headers", headers):
            return put(response)

    return put_object


def test_slow_storage_is_found(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put = S3Response.put_object

    def slow(response: S3Response) -> Any:
        time.sleep(0.3)
        return put(response)

    monkeypatch.setattr(S3Response, "put_object", slow)
    monkeypatch.setattr(storage_module, "SLOW_SECONDS", 0.25)
    monkeypatch.setattr(storage_module, "RACERS", 2)
    found = what(check_storage(s3_url))
    assert not found["output"].ok and "into the region of the machines" in found["output"].mend


def test_storage_that_refuses_is_found(s3_url: str, tmp_path: Path) -> None:
    missing = check_storage("s3://no-such-bucket-anywhere/out")
    assert [finding.ok for finding in missing] == [False] and "let the role of this machine" in missing[0].mend
    file = tmp_path / "file"
    file.write_text("in the way")
    assert [finding.ok for finding in check_storage(str(file / "out"))] == [False]


def test_storage_without_its_package_is_found() -> None:
    assert from_flat({"output.url": "abfs://container/out"}).output.url
    (found,) = check_storage("abfs://container@account.dfs.core.windows.net/out")
    assert not found.ok and "diffii[azure]" in found.said
