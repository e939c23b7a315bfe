"""Every stage of a run in turn has the one GPU of a cluster, which is on another machine than the driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pytest

from diffii.dataset import layout
from diffii.dataset.storage import Storage
from engine.verify import verify
from tests.cluster.commands import run
from tests.cluster.driver import Driver
from tests.cluster.head import head
from tests.cluster.nodes import node
from tests.engine.sources import garments

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
pytest_plugins = ["tests.s3"]

SETTINGS = [
    "--set=captions.method=diffusion",
    "--set=learn.steps=10",
    "--set=learn.batch=4",
    "--set=inversion.steps=4",
    "--set=inversion.micro_batch=4",
    "--set=generation.steps=3",
    "--set=generation.micro_batch=4",
    "--set=commit.chunk_size=4",
    "--set=output.shard_rows=8",
    "--set=expansion.factor=4",
    "--set=dedup.embedder=off",
]


def test_captioning_learning_inverting_and_generating_hand_one_gpu_on(s3_url: str, tmp_path: Path) -> None:
    source, disk = garments(tmp_path / "source", shots=2, classes=2), tmp_path / "disk"
    bucket: Any = fsspec.filesystem("s3")
    bucket.put(str(source), f"{s3_url}/source", recursive=True)
    away, out = f"{s3_url}/source", f"{s3_url}/out"
    # Where the driver keeps things that are only its own, and the node with the GPU sees nothing.
    (tmp_path / "own").mkdir()
    with head(cpus=2) as cluster, node(cluster, "card", hidden=[tmp_path]):
        log = tmp_path / "log"
        one_gpu = ["--set=actors.max=1", "--set=actors.gpus=1"]
        driver = Driver(cluster, log, away, out, *SETTINGS, *one_gpu, TMPDIR=str(tmp_path / "own"))
        driver.finished()
        said = log.read_text()
    stages = ["caption", "learn", "invert", "generate"]
    lines = [line.partition(":")[0] for line in said.splitlines() if line.partition(":")[0] in stages]
    assert list(dict.fromkeys(lines)) == stages, said
    run("expand", source, disk, *SETTINGS, "--set=actors.max=1")
    found, expected = verify(out), verify(str(disk))
    assert (found.problems, found.orphans, found.kept) == ([], [], 16)
    assert (found.digest, found.shards_digest) == (expected.digest, expected.shards_digest)
    assert Storage(out).find(layout.CONCEPTS)
