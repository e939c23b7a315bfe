"""A model in a bucket: copied once to a machine, whole or not at all, and another one when it is replaced there."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from unittest import mock

import fsspec
import pytest
from moto.s3.responses import S3Response

from actors.model import ModelSpec, load
from diffii.errors import ModelError
from diffii.model_cache import CACHE_VARIABLE, cache_folder
from diffii.weights import EMBEDDED_DIR, locate, weights_digest

pytest_plugins = ["tests.s3"]


@pytest.fixture
def model_url(s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The embedded model in a bucket, and a machine that has no copy of it."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    url = f"{s3_url}/model"
    bucket: Any = fsspec.filesystem("s3")
    bucket.put(f"{EMBEDDED_DIR}/", f"{url}/", recursive=True)
    return url


@pytest.fixture
def reads() -> Iterator[Counter[str]]:
    """How often each object of the server was read."""
    counted, lock, get = Counter[str](), threading.Lock(), S3Response.get_object

    def get_object(response: S3Response) -> Any:
        with lock:
            counted[response.parse_key_name()] += 1
        return get(response)

    with mock.patch.object(S3Response, "get_object", get_object):
        yield counted


def test_processes_that_race_copy_it_once(model_url: str, reads: Counter[str]) -> None:
    command = [sys.executable, "-c", f"from diffii.weights import locate; print(locate({model_url!r}))"]
    racing = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) for _ in range(3)]
    found = {process.communicate(timeout=300)[0].strip() for process in racing}
    assert [process.returncode for process in racing] == [0, 0, 0]
    assert len(found) == 1
    assert weights_digest(Path(found.pop())) == weights_digest(EMBEDDED_DIR)
    weights = {name: count for name, count in reads.items() if name.endswith(".safetensors")}
    assert len(weights) == 3
    assert set(weights.values()) == {1}
    assert locate(model_url).parent == cache_folder()
    assert not [entry for entry in cache_folder().iterdir() if ".part-" in entry.name]


def test_half_a_copy_is_none(model_url: str, s3_client: Any) -> None:
    whole = locate(model_url)
    digest = weights_digest(whole)
    # As a process leaves it that is killed while it copies.
    part = whole.with_name(f"{whole.name}.part-left")
    whole.rename(part)
    next(part.rglob("*.safetensors")).unlink()
    assert locate(model_url) == whole
    assert weights_digest(whole) == digest
    assert not part.exists()


def test_a_model_that_is_replaced_is_another_and_no_run_takes_it_unawares(model_url: str) -> None:
    planned = weights_digest(locate(model_url))
    spec = ModelSpec(model=model_url, dtype="fp32", attention="sdpa", threads=1, weights=planned)
    assert load(spec).record.model == model_url
    bucket: Any = fsspec.filesystem("s3")
    config = f"{model_url}/scheduler/scheduler_config.json"
    bucket.pipe_file(config, bucket.cat(config) + b"\n")
    with pytest.raises(ModelError, match=r"backbone\.model: s3://.*/model is not what it was when the run was planned"):
        load(spec)


def test_a_hostile_name_writes_nothing_elsewhere(model_url: str, tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.pipe_file("/hostile/model_index.json", b"{}")
    store.pipe_file("/hostile/unet/x/../../../../../escaped.json", b"{}")
    with pytest.raises(ModelError, match=r"memory://.*hostile has a file called 'unet/x/\.\./.*would lie elsewhere"):
        locate("memory://hostile")
    assert not list(tmp_path.rglob("*escaped*"))


def test_a_model_on_a_web_server_is_copied(model_url: str) -> None:
    """An index page does not say how large files are."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(EMBEDDED_DIR)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        found = locate(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
    assert weights_digest(found) == weights_digest(EMBEDDED_DIR)


def test_what_is_no_model_is_said(model_url: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"backbone\.model: there is nothing at s3://"):
        locate(f"{model_url}-that-is-not-there")
    with pytest.raises(ModelError, match=r"backbone\.model: there is no model_index\.json at s3://"):
        locate(f"{model_url}/unet")
