"""A real S3 server that throttles, forgets to answer, and answers too late."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from moto.server import DomainDispatcherApplication, create_backend_app
from s3fs import S3FileSystem
from werkzeug.serving import make_server

from tests.s3 import HOST, atomic_puts

LATE_SECONDS = 4.0
CLIENT = {"config_kwargs": {"read_timeout": 2, "connect_timeout": 2, "retries": {"max_attempts": 1}}}
"""A client that soon gives up, and leaves trying again to us."""


class Troubled:
    """A WSGI application before the real one: in a share of all requests something goes wrong, from a seed."""

    def __init__(self, application: Any, seed: int, share: float) -> None:
        self._application, self.share = application, share
        self._draw, self._lock = random.Random(seed), threading.Lock()
        self.failures = 0

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        with self._lock:
            chance = self._draw.random() / self.share if self.share else 1.0
            self.failures += chance < 1.0
        if chance >= 1.0:
            return self._application(environ, start)
        if chance < 0.6:
            return _slow_down(environ, start)
        if chance < 0.9:
            # It does what it is asked to, and says that it did not.
            for _ in self._application(environ, lambda *_: lambda _: None):
                pass
            return _slow_down(environ, start)
        time.sleep(LATE_SECONDS)
        return self._application(environ, start)


def _slow_down(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    body = (
        b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
    )
    start("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


@contextmanager
def troubled_s3(seed: int, share: float) -> Iterator[Troubled]:
    """Serve `s3://`, in the environment of this process and of those it starts, until the end of the block."""
    application = Troubled(DomainDispatcherApplication(create_backend_app), seed, share)
    server = make_server(HOST, 0, application, threaded=True)
    environment = {
        "AWS_ENDPOINT_URL": f"http://{HOST}:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "dummy",
        "AWS_SECRET_ACCESS_KEY": "dummy",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "FSSPEC_S3": json.dumps(CLIENT),
    }
    with mock.patch.dict(os.environ, environment), atomic_puts():
        S3FileSystem.clear_instance_cache()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield application
        server.shutdown()
        S3FileSystem.clear_instance_cache()
