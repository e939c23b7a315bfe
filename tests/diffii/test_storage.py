"""One way to publish a file: whole or not at all, the first writer wins; alike on a disk and on S3."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from s3fs import S3FileSystem

from diffii.dataset.storage import Storage
from diffii.errors import OutputError

pytest_plugins = ["tests.s3"]

WRITERS = 20


@pytest.fixture(params=["disk", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "set") if request.param == "disk" else request.getfixturevalue("s3_url")


@pytest.fixture
def storage(url: str) -> Storage:
    return Storage(url)


def _elsewhere(code: str, url: str) -> str:
    """Run code in another process with a Storage `s`; what it prints."""
    program = f"import sys; from diffii.dataset.storage import Storage; s = Storage(sys.argv[1]); {code}"
    done = subprocess.run([sys.executable, "-c", program, url], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_first_writer_wins_and_the_file_is_whole(storage: Storage) -> None:
    contents = [bytes([number]) * 200_000 for number in range(WRITERS)]
    start = threading.Barrier(WRITERS)

    def write(data: bytes) -> bool:
        start.wait()
        return storage.put_once("log/0.json", data)

    with ThreadPoolExecutor(WRITERS) as pool:
        won = list(pool.map(write, contents))
    assert won.count(True) == 1
    assert storage.read("log/0.json") == contents[won.index(True)]
    assert storage.find("") == [("log/0.json", 200_000)]


def test_a_second_writer_changes_nothing(storage: Storage, url: str) -> None:
    assert storage.put_once("a", b"first")
    assert not storage.put_once("a", b"second")
    assert not Storage(url).put_once("a", b"third")
    assert _elsewhere("print(s.put_once('a', b'fourth'))", url) == "False"
    assert storage.read("a") == b"first"
    assert storage.names() == ["a"]


def test_put_replaces(storage: Storage) -> None:
    storage.put("report/a.txt", b"a long first version")
    storage.put("report/a.txt", b"second")
    assert storage.read("report/a.txt") == b"second"
    assert storage.names("report") == ["a.txt"]


def test_names_are_those_directly_in_a_folder(storage: Storage) -> None:
    for name in ("b.txt", "a.txt", "data/z", "data/deep/y", "database/x"):
        storage.put_once(name, b"1")
    assert storage.names() == ["a.txt", "b.txt", "data", "database"]
    assert storage.names("data") == ["deep", "z"]
    assert storage.names("nowhere") == []
    assert storage.names("nowhere/below") == []


def test_find_gives_every_file_below_with_its_size(storage: Storage) -> None:
    for name, size in (("data/z", 3), ("data/deep/y", 0), ("database/x", 5)):
        storage.put_once(name, bytes(size))
    assert storage.find("data") == [("data/deep/y", 0), ("data/z", 3)]
    assert storage.find("") == [("data/deep/y", 0), ("data/z", 3), ("database/x", 5)]
    assert storage.find("nowhere") == []


def test_remove_takes_one_file_and_forgives_a_missing_one(storage: Storage) -> None:
    storage.put_once("log/a", b"1")
    storage.put_once("log/b", b"2")
    storage.remove("log/a")
    storage.remove("log/a")
    assert storage.names("log") == ["b"]
    assert storage.put_once("log/a", b"again")
    assert storage.read("log/a") == b"again"


def test_a_missing_file_is_said_to_be_missing(storage: Storage) -> None:
    storage.put_once("here", b"1")
    assert storage.read_or_none("gone") is None
    with pytest.raises(FileNotFoundError):
        storage.read("gone")
    with pytest.raises(FileNotFoundError), storage.open("gone") as file:
        file.read()


def test_names_may_hold_what_people_put_in_them(storage: Storage) -> None:
    names = sorted(["été/a b.jpg", "a#1.png", "100%/x+y&z", "[0]*?.txt"])
    for name in names:
        assert storage.put_once(name, name.encode())
    assert [name for name, _ in storage.find("")] == names
    assert [storage.read(name).decode() for name in names] == names


def test_an_opened_file_can_be_read_from_its_end(storage: Storage) -> None:
    storage.put_once("a", bytes(range(256)) * 100)
    with storage.open("a") as file:
        file.seek(-3, os.SEEK_END)
        assert file.read() == bytes([253, 254, 255])


def test_what_another_process_writes_is_seen_at_once(storage: Storage, url: str) -> None:
    storage.put_once("log/0", b"0")
    # Every kind of look, so that whatever is cached is cached before the other process writes.
    assert storage.names("log") == ["0"] and storage.find("") == [("log/0", 1)]
    assert not storage.fs.exists(storage.path("log/1"))
    _elsewhere("s.put_once('log/1', b'one'); s.put('log/0', b'longer'); s.put('other/2', b'')", url)
    with storage.open("log/1") as file:
        assert file.read() == b"one"
    with storage.open("log/0") as file:
        assert file.read() == b"longer"
    assert storage.fs.exists(storage.path("other/2"))
    assert storage.names("log") == ["0", "1"]
    assert storage.names() == ["log", "other"]
    assert storage.find("") == [("log/0", 6), ("log/1", 3), ("other/2", 0)]


def test_a_file_removed_by_another_process_is_gone_at_once(storage: Storage, url: str) -> None:
    storage.put_once("log/0", b"0")
    storage.put_once("log/1", b"1")
    assert storage.names("log") == ["0", "1"]
    _elsewhere("s.remove('log/1')", url)
    assert storage.names("log") == ["0"]
    assert storage.read_or_none("log/1") is None
    assert storage.put_once("log/1", b"new")


def test_a_folder_marker_of_an_object_store_is_no_file_of_ours(s3_url: str, s3_client: Any) -> None:
    bucket = s3_url.split("/")[2]
    s3_client.put_object(Bucket=bucket, Key="set/")
    s3_client.put_object(Bucket=bucket, Key="set/data/")
    s3_client.put_object(Bucket=bucket, Key="set/data/a", Body=b"1")
    assert Storage(s3_url).names() == ["data"]
    assert Storage(s3_url).names("data") == ["a"]


def test_a_relative_folder_means_the_same_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = Storage("out/set/")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    storage.put_once("a", b"1")
    assert storage.url == str(tmp_path / "out" / "set")
    assert Storage(storage.url).read("a") == b"1"
    assert (tmp_path / "out" / "set" / "a").read_bytes() == b"1"


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    program = (
        "import resource; from diffii.errors import OutputError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "for write in (s.put_once, s.put):\n"
        "    try: write('log/0', bytes(5000))\n"
        "    except OutputError: print('refused')"
    )
    assert _elsewhere(f"exec({program!r})", str(tmp_path)) == "refused\nrefused"
    assert list((tmp_path / "log").iterdir()) == []


def test_a_url_that_nothing_can_open_is_named() -> None:
    with pytest.raises(OutputError, match="nosuch://x"):
        Storage("nosuch://x/y")


@pytest.mark.slow
def test_a_file_sent_in_parts_is_exclusive_too(s3_url: str) -> None:
    storage = Storage(s3_url)
    first, second = bytes(101 * 2**20), b"1" * (101 * 2**20)
    assert storage.put_once("data/a", first)
    assert not storage.put_once("data/a", second)
    assert storage.read("data/a") == first


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("gs://bucket/x", "gs:// needs the package gcsfs, which is not installed: pip install 'diffii[gcs]'"),
        ("abfs://container/x", "abfs:// needs the package adlfs, which is not installed: pip install 'diffii[azure]'"),
        ("s3://bucket/x", "s3:// needs the package s3fs, which is not installed: pip install 'diffii[s3]'"),
        ("https://host/x", "https:// needs the package aiohttp, which is not installed: pip install 'diffii[http]'"),
    ],
)
def test_a_missing_extra_is_named(url: str, said: str) -> None:
    # Each in a process of its own, where none of the four can be imported.
    code = (
        "import sys\n"
        "for name in ('gcsfs', 'adlfs', 's3fs', 'aiohttp'): sys.modules[name] = None\n"
        "from diffii.errors import OutputError\nfrom diffii.dataset.storage import Storage\n"
        "try: Storage(sys.argv[1])\nexcept OutputError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=True)
    assert said in done.stdout


def test_an_upload_that_the_server_never_asks_for_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3's client waits for `100 Continue` before it sends, without a limit of its own."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "dummy")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "dummy")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setattr("diffii.dataset.storage.UPLOAD_SECONDS", 1.0)
        monkeypatch.setattr("diffii.dataset.patience.PAUSES", (0.0,))
        S3FileSystem.clear_instance_cache()
        try:
            storage = Storage("s3://bucket/set")
            for write in (storage.put, storage.put_once):
                with pytest.raises(OutputError, match="storage failed 2 times over, last with FSTimeoutError"):
                    write("a", b"1")
        finally:
            S3FileSystem.clear_instance_cache()
