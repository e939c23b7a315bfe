"""A Ray cluster of one node on this machine, started as a head is: with a dashboard and a token."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

PATIENCE = 120.0


@dataclass(frozen=True)
class Head:
    address: str
    """Of the dashboard."""
    token: str

    @property
    def environment(self) -> dict[str, str]:
        """Of somebody who may use it; what a Ray around this process says is taken out."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
        kept.pop("RAY_ADDRESS", None)
        return {**kept, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}


@contextlib.contextmanager
def head(cpus: int = 3, gpus: int = 0) -> Iterator[Head]:
    """Start it, and end it with all that it started."""
    ports = _free(5)
    made = Head(f"http://127.0.0.1:{ports[0]}", secrets.token_hex(32))
    # Jobs are started by `python`, which is to be this one. Names of sockets must be short.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        # Without a folder of its own it would become what `ray.init()` joins on this machine from then on.
        Path(folder, "ray").mkdir()
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
                *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={ports[0]}"),
                *(f"--port={ports[1]}", f"--ray-client-server-port={ports[2]}"),
                *(f"--dashboard-agent-listen-port={ports[3]}", f"--dashboard-agent-grpc-port={ports[4]}"),
                *(
                    f"--num-cpus={cpus}",
                    f"--num-gpus={gpus}",
                    "--object-store-memory=150000000",
                    f"--temp-dir={folder}/ray",
                ),
            ],
            env={**made.environment, "PATH": path, "RAY_TMPDIR": folder, "RAY_BACKEND_LOG_LEVEL": "fatal"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            _wait(made, process)
            yield made
        finally:
            family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.kill()
            for child in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            process.wait()
            # Some are nobody's children by now, and stay zombies where there is no init to see to them.
            psutil.wait_procs(family, timeout=3)


@contextlib.contextmanager
def held_still(made: Head, actor: str) -> Iterator[None]:
    """Actors whose name holds `actor` do nothing meanwhile, so that what is looked at is not over before."""
    held = [process for process in psutil.process_iter(["cmdline"]) if _is(process, made, actor)]
    assert held, f"no {actor} is at work"
    for process in held:
        process.suspend()
    try:
        yield
    finally:
        for process in held:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def _is(process: psutil.Process, made: Head, actor: str) -> bool:
    if actor not in " ".join(process.info["cmdline"] or []):
        return False
    with contextlib.suppress(psutil.Error):
        return process.environ().get("RAY_AUTH_TOKEN") == made.token
    return False


def _free(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait(made: Head, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    headers = {"Authorization": f"Bearer {made.token}"}
    while time.monotonic() < deadline:
        assert process.poll() is None, "the head did not start"
        with contextlib.suppress(requests.RequestException):
            # Jobs are taken once the agent is there, too.
            if requests.get(f"{made.address}/api/jobs/", headers=headers, timeout=5).ok:
                return
        time.sleep(0.5)
    raise AssertionError("the head does not answer")
