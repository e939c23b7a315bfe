"""A real S3 server on this machine, reached the way a user reaches one: `s3://` URLs and the AWS environment.

A test module that wants it says `pytest_plugins = ["tests.s3"]` and takes the fixture `s3_url`.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import boto3
import pytest
from moto.core.responses import TYPE_RESPONSE
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

HOST = "127.0.0.1"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The server's address, in the environment of this process and of those it starts."""
    with pytest.MonkeyPatch.context() as patch, atomic_puts():
        server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", "dummy")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "dummy")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        S3FileSystem.clear_instance_cache()
        yield endpoint
        server.stop()
        S3FileSystem.clear_instance_cache()


@pytest.fixture
def s3_client(s3_endpoint: str) -> Any:
    """The server seen past fsspec, as another program sees it."""
    return boto3.client("s3", endpoint_url=s3_endpoint)


@pytest.fixture
def s3_url(s3_client: Any) -> str:
    """A folder in a new, empty bucket."""
    bucket = f"bucket-{secrets.token_hex(4)}"
    s3_client.create_bucket(Bucket=bucket)
    return f"s3://{bucket}/set"


@contextmanager
def atomic_puts() -> Iterator[None]:
    """S3 decides a conditional PUT in one step; moto looks and then writes, and two threads may both have looked."""
    put, lock = S3Response.put_object, threading.Lock()

    def put_object(response: S3Response) -> TYPE_RESPONSE:
        with lock:
            return put(response)

    with mock.patch.object(S3Response, "put_object", put_object):
        yield
