"""A run as a job: on a real Ray with a token, submitted, followed, left, stopped, submitted again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from diffii.dataset import layout
from diffii.dataset.storage import Storage
from engine.run_id import identity_digest, run_id
from engine.settings import from_flat
from engine.verify import verify
from tests.cluster.commands import SMALL, diffii
from tests.cluster.commands import run as run_here
from tests.cluster.head import Head, head, held_still
from tests.engine.sources import garments

ROWS = 400


def test_a_run_is_named_by_its_output() -> None:
    name = run_id(from_flat({"output.url": "s3://bucket/Birds of  Prey/"}))
    assert re.fullmatch(r"diffii-birds-of-prey-[0-9a-f]{8}", name)
    assert name == run_id(from_flat({"output.url": "s3://bucket/Birds of  Prey", "expansion.seed": 3}))
    assert name != run_id(from_flat({"output.url": "s3://other/Birds of  Prey"}))
    long = run_id(from_flat({"output.url": f"s3://bucket/{'x' * 200}"}))
    assert len(long) <= 40 and re.fullmatch(r"[a-z0-9-]+", long)


def test_settings_that_may_not_change_are_told_apart() -> None:
    first = identity_digest(from_flat({"output.url": "s3://b/o"}))
    assert first == identity_digest(from_flat({"output.url": "s3://b/o", "actors.max": 3, "expansion.factor": 9}))
    assert first != identity_digest(from_flat({"output.url": "s3://b/o", "expansion.seed": 3}))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ray://127.0.0.1:10001", "Ray Client (ray://) is not used"),
        ("127.0.0.1:8265", "must be the dashboard's"),
        ("http://203.0.113.7:8265", "the token would go over the network for everybody to read; open a tunnel"),
        ("http://127.0.0.1:1", "does not answer; is the cluster up, and the tunnel open"),
    ],
)
def test_an_address_that_will_not_do_is_said(address: str, said: str) -> None:
    # In a process of its own: Ray keeps one token for a process, and a Ray that runs in this one needs another.
    done = subprocess.run(
        diffii("cluster", "status", "any", "--address", address),
        env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 2 and said in " ".join(done.stderr.split()), done.stderr


@pytest.fixture(scope="module")
def running() -> Iterator[Head]:
    with head() as started:
        yield started


@pytest.mark.cluster
def test_submit_follow_leave_stop_and_submit_again(running: Head, tmp_path: Path) -> None:
    source, out, here = garments(tmp_path / "source", shots=2, classes=2), tmp_path / "out", tmp_path / "here"
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({"source": {"url": str(source)}, "output": {"url": str(out)}}), encoding="utf-8")
    settings = [*SMALL, f"--set=expansion.factor={ROWS // 4}"]

    def said(*arguments: str, code: int = 0, token: str = running.token) -> str:
        done = subprocess.run(
            diffii("cluster", *arguments, "--address", running.address),
            env={**running.environment, "RAY_AUTH_TOKEN": token},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, done.stderr + done.stdout
        return done.stdout + done.stderr

    assert "does not know this token" in said("status", code=2, token="0" * 64)
    assert "no run of diffii was submitted" in said("status")

    # Followed, and left by Ctrl-C.
    log = tmp_path / "log"
    with log.open("w") as file:
        # Commands that a shell begins in the background ignore Ctrl-C, and so would what they begin.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        command = diffii("cluster", "submit", "--config", str(config), *settings, "--address", running.address)
        follower = subprocess.Popen(command, env=running.environment, stdout=file, stderr=file)
        _until(lambda: len(Storage(str(out)).find(layout.SIDECARS)) >= 2, lambda: follower.poll() is None, log)
        follower.send_signal(signal.SIGINT)
        assert follower.wait(60) == 0
    text = log.read_text()
    name = f"{run_id(from_flat({'output.url': str(out)}))}-1"
    assert f"{name} is submitted\n" in text and "invert: " in text
    assert f"{name} goes on without you\n" in text and f"diffii cluster stop {name}" in text
    # Calm: nothing of Ray's own.
    assert not [line for line in text.splitlines() if "ray" in line.lower().replace(running.address, "")], text

    # It goes on; a second driver is refused.
    with held_still(running, "Generator"):
        assert (
            json.loads(said("status", "--json"))["runs"][0] | {"state": "running", "name": name}
            == (json.loads(said("status", name, "--json"))["runs"][0])
        )
        refused = said("submit", "--config", str(config), *settings, code=2)
        assert f"{name} is at work on {out} (running)" in refused and "stop: diffii cluster stop" in refused

    # Stopped: it leaves politely, and nothing goes on.
    assert f"{name} is stopped; the same submit goes on from there" in said("stop", "--config", str(config))
    assert f"{name} is stopped: nothing to stop" in said("stop", name)
    assert not (out / layout.HEARTBEAT).exists()
    partly = verify(str(out))
    assert not partly.ok and 0 < partly.kept < ROWS

    # Again: on from there, to the bytes of a run on this machine alone.
    done = said("submit", "--config", str(config), *settings)
    second = name[:-1] + "2"
    assert f"{second} is submitted; {name} has stopped, this goes on from there" in done
    assert "generate: " in done and done.rstrip().endswith(f"{second}: succeeded")
    assert [run["state"] for run in json.loads(said("status", "--json"))["runs"]] == ["stopped", "succeeded"]
    assert "nothing to do" in said("submit", "--config", str(config), *settings)
    run_here("expand", source, here, *settings)
    found, expected = verify(str(out)), verify(str(here))
    assert (found.ok, found.kept, found.problems, found.orphans) == (True, ROWS, [], [])
    assert (found.digest, found.shards_digest) == (expected.digest, expected.shards_digest)

    # A run that cannot work says so, and is a failure.
    other = [*settings, "--set=expansion.seed=3"]
    failed = said("submit", "--config", str(config), *other, code=1)
    assert "its settings are others than then" in failed and "was begun with other settings" in failed


def _until(sign: Callable[[], bool], alive: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 200
    while not sign():
        assert alive() and time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


@pytest.mark.parametrize("file", [None, "gone", "empty"])
def test_without_a_token_it_says_where_one_is_to_be_had(file: str | None, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    place = {} if file is None else {"RAY_AUTH_TOKEN_PATH": str(tmp_path / file)}
    done = subprocess.run(
        diffii("cluster", "status"),
        env={**kept, "HOME": str(tmp_path), **place},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "RAY_AUTH_TOKEN_PATH=FILE" in done.stderr


def test_without_a_cluster_auto_says_what_to_do(tmp_path: Path) -> None:
    source = garments(tmp_path / "source", shots=1, classes=1)
    environment = {**os.environ, "RAY_ADDRESS": "127.0.0.1:1", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    done = subprocess.run(
        diffii("expand", source, tmp_path / "out", "--address", "auto", *SMALL),
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 2 and "error: --address auto: no Ray answers here" in done.stderr, done.stderr
