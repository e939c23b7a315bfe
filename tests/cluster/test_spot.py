"""A spot notice on one node of a cluster: Ray hears of it, the run goes on elsewhere, and the data set is the same."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from actors.spot import METADATA_VARIABLE
from engine.verify import verify
from tests.actors.clouds import cloud
from tests.cluster.commands import run
from tests.cluster.driver import ON_GPUS, SMALL_RUN, Driver
from tests.cluster.head import head
from tests.cluster.losses import Losses
from tests.cluster.nodes import node, nodes
from tests.engine.sources import garments

NOTICE_SECONDS = 30


@pytest.mark.cluster
@pytest.mark.slow
def test_a_node_with_a_notice_is_drained_and_the_other_goes_on(tmp_path: Path) -> None:
    source, out, quiet = garments(tmp_path / "source", shots=2, classes=2), tmp_path / "out", tmp_path / "quiet"
    with (
        cloud("aws") as taken_back,
        cloud("aws") as stays,
        head(cpus=2) as cluster,
        contextlib.ExitStack() as around,
        Losses(str(out)) as losses,
    ):
        spot = around.enter_context(node(cluster, "spot", environment={METADATA_VARIABLE: taken_back.url}))
        other = around.enter_context(node(cluster, "other", environment={METADATA_VARIABLE: stays.url}))
        driver = Driver(cluster, tmp_path / "log", source, out, *SMALL_RUN, *ON_GPUS)
        driver.until(lambda: losses.works(spot.id) and losses.works(other.id), "both nodes work")
        at = datetime.fromtimestamp(time.time() + NOTICE_SECONDS, UTC)
        taken_back.notice = json.dumps({"action": "terminate", "time": at.strftime("%Y-%m-%dT%H:%M:%SZ")})
        driver.until(lambda: "AWS takes its machine back in" in driver.said, "the notice is told")
        driver.until(lambda: losses.idle(spot.id, 5.0), "the drained node has nothing in hand")
        spot.kill()
        losses.ended("a notice", spot.id, "", losses.now())
        driver.finished()
        assert [entry["nodeId"] for entry in nodes(cluster) if "other" in entry["resourcesTotal"]] == [other.id]
    assert losses.error is None
    assert [loss.chunks for loss in losses.told()] == [0]
    run("expand", source, quiet, *SMALL_RUN)
    found, expected = verify(str(out)), verify(str(quiet))
    assert (found.problems, found.orphans, found.reproducible) == ([], [], True)
    assert (found.digest, found.shards_digest) == (expected.digest, expected.shards_digest)
