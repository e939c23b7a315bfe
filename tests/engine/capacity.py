"""A script: a stage asks for a GPU that the cluster does not have, and a node with one joins later."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

import pyarrow as pa
import ray
from ray.cluster_utils import Cluster

from actors.attempts import Process
from actors.desk import Desk
from actors.model import ActorSpec, ModelSpec
from actors.preemption import ray_node
from actors.watchdog import Watchdog
from cluster.local import hide_reports
from engine import progress as progress_module
from engine.progress import Actors, Silent
from engine.stream import Pool, stream


class Modest:
    """An actor without a model."""

    def __init__(self, spec: ActorSpec) -> None:
        self._desk = Desk(spec, Process(spec.run, ray_node()))
        self._desk.open(Watchdog(spec.stall_timeout, lambda seconds: None))

    def __call__(self, table: pa.Table) -> pa.Table:
        with self._desk.holding(str(table["task"][0])):
            return table


class Spoken(Silent):
    """Prints every new state, and knows whether it has been waiting."""

    def __init__(self) -> None:
        self.waited = threading.Event()

    def actors(self, actors: Actors) -> None:
        print(actors, flush=True)
        if actors.waiting:
            self.waited.set()


def main() -> None:
    os.environ.update({"RAY_AUTH_MODE": "disabled", "RAY_BACKEND_LOG_LEVEL": "fatal"})
    progress_module.STARTING_SECONDS = 4.0
    head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    hide_reports()
    model = ModelSpec(model="", dtype="fp32", attention="sdpa", threads=1)
    spec = ActorSpec(model=model, output_url="nowhere", micro_batch=1)
    tasks = pa.table({"task": [0, 1, 2]})
    found: list[dict[str, Any]] = []
    spoken = Spoken()
    work = threading.Thread(
        target=lambda: found.extend(stream(tasks, Modest, spec, Pool(min=1, max=1, gpus=1.0), progress=spoken))
    )
    work.start()
    assert spoken.waited.wait(120)
    time.sleep(5)
    print("a node joins", flush=True)
    # In the main thread, where its signal handler can be set.
    cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=100 * 2**20)
    work.join(200)
    print("results:", sorted(row["task"] for row in found), flush=True)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
