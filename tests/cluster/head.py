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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import requests
import yaml

PATIENCE = 120.0


@dataclass(frozen=True)
class Head:
    address: str
    """Of the dashboard."""
    token: str
    gcs: str = ""
    """What a driver on this machine gives as `RAY_ADDRESS`."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Of somebody who may use it; what a Ray around this process says is taken out."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
        kept.pop("RAY_ADDRESS", None)
        return {**kept, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}


@contextlib.contextmanager
def head(cpus: int = 3, gpus: int = 0, workers: Mapping[str, Any] | None = None) -> Iterator[Head]:
    """Start it, and end it with all that it started. With `workers`, types of nodes for Ray's autoscaler to start."""
    ports = _free(5)
    made = Head(f"http://127.0.0.1:{ports[0]}", secrets.token_hex(32), f"127.0.0.1:{ports[1]}")
    # Jobs are started by `python`, which is to be this one. Names of sockets must be short.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        # Without a folder of its own it would become what `ray.init()` joins on this machine from then on.
        Path(folder, "ray").mkdir()
        autoscaling: list[str] = []
        if workers is not None:
            Path(folder, "cluster.yaml").write_text(yaml.safe_dump(_autoscaling(made.gcs, cpus, workers)))
            autoscaling = [f"--autoscaling-config={folder}/cluster.yaml"]
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
                    *autoscaling,
                ),
            ],
            env={
                **made.environment,
                "PATH": path,
                "RAY_TMPDIR": folder,
                "RAY_BACKEND_LOG_LEVEL": "fatal",
                "RAY_FAKE_CLUSTER": "1",
                "AUTOSCALER_UPDATE_INTERVAL_S": "1",
                "RAY_enable_autoscaler_v2": "0",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            _wait(made, process)
            yield replace(made, process=process)
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL a node: the process that started it and all that it started."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.kill()
    for child in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()
    # Some are nobody's children by now, and stay zombies where there is no init to see to them.
    psutil.wait_procs(family, timeout=3)


def _autoscaling(gcs: str, cpus: int, workers: Mapping[str, Any]) -> dict[str, Any]:
    """A cluster whose nodes are processes of this machine; `ray.cluster_utils` has one that ends everybody's Ray."""
    head_type = "ray.head.default"
    return {
        "cluster_name": "make-believe",
        "max_workers": 8,
        "idle_timeout_minutes": 0.1,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": gcs,
            # Without these three the autoscaler looks for ssh and ends.
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {
            **workers,
            head_type: {"resources": {"CPU": cpus}, "node_config": {}, "max_workers": 0},
        },
        "head_node_type": head_type,
        "upscaling_speed": 1.0,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }


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
