"""Further nodes of a cluster on this machine, each as far from the others as one machine allows.

A node is `ray start` with a process group, a temporary directory, a home and a Ray session of its own. Where this
process may (it is root on Linux) it lives in a mount namespace too, in which the folders named `hidden` are empty: what
an actor there reads, it has not from the driver's disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import requests

from tests.cluster.head import Head, end

PATIENCE = 200.0
APART = hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("unshare") is not None


class Node:
    """One node; `name` is a resource that no other has. Ended with all its processes by `kill`."""

    def __init__(
        self, cluster: Head, name: str, home: Path, hidden: Sequence[Path], environment: Mapping[str, str]
    ) -> None:
        self._cluster, self.name = cluster, name
        for folder in ("ray", "home", "tmp"):
            (home / folder).mkdir(parents=True)
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"),
            *(f"--address={cluster.gcs}", "--node-ip-address=127.0.0.1", "--num-cpus=1", "--num-gpus=1"),
            *("--object-store-memory=100000000", f"--resources={json.dumps({name: 1})}", f"--temp-dir={home}/ray"),
        ]
        if APART and hidden:
            mounts = " && ".join(f"mount -t tmpfs tmpfs '{folder}'" for folder in hidden)
            command = ["unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh", *command]
        self._command, self._home, self._said = command, home, home / "said"
        self._environment = {
            **cluster.environment,
            "HOME": str(home / "home"),
            "TMPDIR": str(home / "tmp"),
            "RAY_TMPDIR": str(home),
            "RAY_BACKEND_LOG_LEVEL": "fatal",
            **environment,
        }
        self._start()

    def drain(self, seconds: int) -> None:
        """What a spot notice leads to: no new tasks, and the node goes so many seconds from now."""
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "drain-node", f"--address={self._cluster.gcs}"),
            *(f"--node-id={self.id}", "--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot notice"),
            f"--deadline-remaining-seconds={seconds}",
        ]
        subprocess.run(command, env=self._cluster.environment, check=True, capture_output=True, timeout=PATIENCE)

    def kill(self) -> None:
        """All at once and without a word, as when a cloud takes a machine back."""
        end(self.process)

    def _start(self) -> None:
        deadline = time.monotonic() + PATIENCE
        self.process = self._started()
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                # Ray gives a node half a minute and no more, which a busy machine does not always keep.
                assert "timed out during startup" in self._said.read_text(), self._said.read_text()
                self.process = self._started()
            for node in nodes(self._cluster):
                if self.name in node.get("resourcesTotal", {}):
                    self.id: str = node["nodeId"]
                    return
            time.sleep(0.5)
        self.kill()
        raise AssertionError(f"{self.name} does not join: {self._said.read_text()}")

    def _started(self) -> subprocess.Popen[bytes]:
        with self._said.open("w") as said:
            return subprocess.Popen(
                self._command,
                env=self._environment,
                stdout=said,
                stderr=said,
                start_new_session=True,
                cwd=self._home,
            )


@contextlib.contextmanager
def node(
    cluster: Head, name: str, hidden: Sequence[Path] = (), environment: Mapping[str, str] | None = None
) -> Iterator[Node]:
    """A node for a while; `environment` is what its processes see besides."""
    with tempfile.TemporaryDirectory(prefix="n", dir="/tmp", ignore_cleanup_errors=True) as folder:
        made = Node(cluster, name, Path(folder), hidden, environment or {})
        try:
            yield made
        finally:
            made.kill()


def nodes(cluster: Head) -> list[dict]:
    """The nodes that are alive, as the dashboard tells them."""
    try:
        answer = requests.get(
            f"{cluster.address}/nodes?view=summary", headers={"Authorization": f"Bearer {cluster.token}"}, timeout=30
        ).json()
    except requests.RequestException:
        return []
    found = [entry["raylet"] for entry in answer["data"]["summary"]]
    return [entry for entry in found if entry.get("state") == "ALIVE"]
