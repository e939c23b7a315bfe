"""A cluster of separate nodes without a common disk loses one without a word, one with notice, and then its head.

Source and output are in a bucket. What is committed in the end is what a quiet run on this machine's disk commits.
`-s` prints what each loss cost.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fsspec
import pytest

from diffii.dataset import layout
from diffii.dataset.storage import Storage
from engine.verify import verify
from tests.cluster.commands import run
from tests.cluster.driver import ON_GPUS, SMALL_RUN, Driver
from tests.cluster.head import end, head
from tests.cluster.losses import Losses
from tests.cluster.nodes import APART, Node, node
from tests.engine.sources import garments

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
pytest_plugins = ["tests.s3"]

NOTICE_SECONDS = 10


def shards(out: str, beyond: int = 0) -> Callable[[], bool]:
    """Whether so many more have been published than `beyond`."""
    storage = Storage(out)
    return lambda: len(storage.find(layout.SIDECARS)) > beyond


def published(out: str) -> int:
    return len(Storage(out).find(layout.SIDECARS))


def test_nodes_and_the_head_go_and_the_data_set_is_the_same(s3_url: str, tmp_path: Path) -> None:
    source, disk = garments(tmp_path / "source", shots=2, classes=2), tmp_path / "disk"
    bucket: Any = fsspec.filesystem("s3")
    bucket.put(str(source), f"{s3_url}/source", recursive=True)
    away, out = f"{s3_url}/source", f"{s3_url}/out"
    began = time.monotonic()
    run("expand", source, disk, *SMALL_RUN)
    quiet = time.monotonic() - began
    began = time.monotonic()
    # Of this test's folder the nodes see nothing, where that can be done.
    hidden = [tmp_path]
    with Losses(out) as losses, contextlib.ExitStack() as second:
        with head(cpus=2) as cluster, contextlib.ExitStack() as nodes:

            def join(name: str) -> Node:
                return nodes.enter_context(node(cluster, name, hidden))

            taken, drained = join("taken"), join("drained")
            driver = Driver(cluster, tmp_path / "first.log", away, out, *SMALL_RUN, *ON_GPUS)
            driver.until(lambda: losses.works(taken.id) and losses.works(drained.id), "both nodes work")
            driver.until(shards(out), "a shard is published")
            taken.kill()
            at = losses.now()
            replacing = join("replacing")
            losses.ended("a node is taken away", taken.id, replacing.id, at)
            driver.until(lambda: losses.works(replacing.id), "the new node works")
            drained.drain(NOTICE_SECONDS)
            left = losses.now()
            time.sleep(max(0.0, NOTICE_SECONDS - (losses.now() - left)))
            drained.kill()
            losses.ended("a node is drained", drained.id, "", losses.now())
            assert driver.process.poll() is None, driver.said
            # The machine of head and driver is gone; its other nodes are still there for a while.
            assert cluster.process is not None
            end(cluster.process)
            driver.process.kill()
            driver.process.wait()
            at, before = losses.now(), published(out)
            found = verify(out)
            assert not found.ok and found.problems[0].endswith("run the same expand command again"), found
            again = second.enter_context(head(cpus=2))
            fresh = second.enter_context(node(again, "fresh", hidden))
            losses.ended("the head is gone", replacing.id, fresh.id, at)
            driver = Driver(again, tmp_path / "second.log", away, out, *SMALL_RUN, *ON_GPUS)
            driver.until(shards(out, before), "the run goes on")
        driver.finished()
    assert losses.error is None
    took = time.monotonic() - began
    told = {"apart": APART, "quiet_seconds": round(quiet), "seconds": round(took)}
    print(json.dumps({**told, "losses": [asdict(loss) for loss in losses.told()]}))
    found, expected = verify(out), verify(str(disk))
    assert (found.problems, found.orphans) == ([], [])
    assert (found.kept, found.poisoned, found.reproducible) == (expected.kept, 0, True)
    assert (found.digest, found.shards_digest) == (expected.digest, expected.shards_digest)
