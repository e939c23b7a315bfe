"""`python -m tests.chaos.nodes SOURCE OUT SEED KEY=VALUE ...`: a cluster that loses one node and drains another.

Two nodes with a make-believe GPU each; one is removed without a word while its actor works, a third joins, the second
is drained as a spot notice does and then goes. Prints a JSON object of what happened.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sys
import threading
import time
from typing import Any

import ray
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]
from ray.cluster_utils import Cluster

from cluster.local import hide_reports
from diffii.dataset import layout
from diffii.dataset.storage import Storage
from engine import expand as expansion
from engine.settings import load_config
from tests.chaos.troubled import Troubled

STORE = 100 * 2**20
PREEMPTION = 2
"""Ray's number of the reason for which spot nodes are drained."""
NOTICE_SECONDS = 8.0


def main(source: str, out: str, seed: str, *settings: str) -> None:
    os.environ.update({"RAY_AUTH_MODE": "disabled", "RAY_BACKEND_LOG_LEVEL": "fatal"})
    expansion.Generator = Troubled
    # The driver's node has no GPU: nothing of the model runs there.
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, "object_store_memory": STORE}
    )
    nodes = [_node(cluster), _node(cluster)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    hide_reports()
    overrides = {"source.url": source, "output.url": out, "actors.gpus": 1.0, "actors.max": 2}
    config = load_config(sets=settings, overrides=overrides)
    errors: list[BaseException] = []

    def expand() -> None:
        try:
            expansion.expand(config)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    work = threading.Thread(target=expand)
    work.start()
    draw, storage = random.Random(int(seed)), Storage(out)
    happened = {"nodes_removed": 0, "nodes_drained": 0}
    # In the main thread, where Ray sets its signal handlers.
    _until(storage, work, 2)
    time.sleep(draw.uniform(0.0, 1.0))
    if work.is_alive():
        cluster.remove_node(nodes[0], allow_graceful=False)
        happened["nodes_removed"] += 1
        _node(cluster)
    _until(storage, work, 5)
    time.sleep(draw.uniform(0.0, 1.0))
    if work.is_alive():
        deadline = int((time.time() + NOTICE_SECONDS) * 1000)
        taken, _ = GcsClient(address=cluster.address).drain_node(nodes[1].node_id, PREEMPTION, "spot notice", deadline)
        happened["nodes_drained"] += int(taken)
        time.sleep(NOTICE_SECONDS)
        cluster.remove_node(nodes[1], allow_graceful=False)
    work.join()
    print(json.dumps(happened), flush=True)
    ray.shutdown()
    cluster.shutdown()
    if errors:
        raise errors[0]


def _node(cluster: Cluster) -> Any:
    return cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=STORE)


def _until(storage: Storage, work: threading.Thread, commits: int) -> None:
    """Wait until so many shards are in the log, or the run has ended."""
    while work.is_alive() and len(storage.find(layout.SIDECARS)) < commits:
        time.sleep(0.1)


if __name__ == "__main__":
    main(*sys.argv[1:])
