"""A cluster that is grown for a run and shrinks after it: real Ray, real autoscaler, nodes that are processes here."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from engine.verify import verify
from tests.cluster.commands import SMALL, diffii, run
from tests.cluster.head import Head, head
from tests.engine.sources import garments

PATIENCE = 300.0
GPU = {
    "resources": {"CPU": 1, "GPU": 1, "object_store_memory": 100 * 2**20},
    "node_config": {},
    "min_workers": 0,
    "max_workers": 2,
}


@pytest.fixture
def growing() -> Iterator[Head]:
    with head(cpus=2, workers={"gpu": GPU}) as started:
        yield started


def gpu_nodes(cluster: Head) -> int:
    answer = requests.get(
        f"{cluster.address}/nodes?view=summary", headers={"Authorization": f"Bearer {cluster.token}"}, timeout=30
    ).json()
    nodes = [node["raylet"] for node in answer["data"]["summary"]]
    return sum(node["state"] == "ALIVE" and node.get("resourcesTotal", {}).get("GPU", 0) > 0 for node in nodes)


def within(sign: Callable[[], bool], what: str) -> float:
    """Wait; how many seconds it took."""
    began = time.monotonic()
    while not sign():
        assert time.monotonic() - began < PATIENCE, what
        time.sleep(0.5)
    return time.monotonic() - began


@pytest.mark.cluster
def test_a_cluster_grows_for_a_run_and_shrinks_after_it(growing: Head, tmp_path: Path) -> None:
    source, out, here = garments(tmp_path / "source", shots=2, classes=2), tmp_path / "out", tmp_path / "here"
    settings = [*SMALL, "--set=expansion.factor=100"]
    assert gpu_nodes(growing) == 0
    log = tmp_path / "log"
    with log.open("w") as file:
        work = subprocess.Popen(
            diffii("expand", source, out, "--address", "auto", *settings, "--set=actors.max=2", "--set=actors.gpus=1"),
            env={**growing.environment, "RAY_ADDRESS": growing.gcs},
            stdout=file,
            stderr=file,
        )

        def grown() -> bool:
            assert work.poll() is None, log.read_text()
            return gpu_nodes(growing) == 2

        took = {"grown": within(grown, "the cluster did not grow")}
        assert work.wait(PATIENCE) == 0, log.read_text()
    took["shrunk"] = within(lambda: gpu_nodes(growing) == 0, "the cluster did not shrink")
    text = log.read_text()
    print(json.dumps(took))  # how long it took is for whoever asks with -s
    assert not [line for line in text.splitlines() if line.startswith("[")], text
    run("expand", source, here, *settings)
    found, expected = verify(str(out)), verify(str(here))
    assert (found.ok, found.kept, found.reproducible) == (True, 400, True)
    assert (found.digest, found.shards_digest) == (expected.digest, expected.shards_digest)
