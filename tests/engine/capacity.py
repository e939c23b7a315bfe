"""A script: each stage asks for a GPU that the cluster does not have, and a node with some joins later."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.cluster_utils import Cluster

from actors.attempts import Process
from actors.board import Watched
from actors.desk import Desk
from actors.learner import learn
from actors.preemption import ray_node
from cluster.local import hide_reports
from engine import progress as progress_module
from engine.batch_stage import settle_batches
from engine.prepare import prepare
from engine.progress import Actors, Silent
from engine.settings import from_flat
from engine.stream import Pool, stream
from engine.watch import watching
from tests.actors import test_learner
from tests.engine.sources import PLAIN, garments

ONE = Pool(min=1, max=1, gpus=1.0)


class Modest:
    """An actor without a model."""

    def __init__(self, spec: Watched) -> None:
        self._desk = Desk(spec, Process(spec.run, ray_node()))
        self._desk.open()

    def __call__(self, table: pa.Table) -> pa.Table:
        with self._desk.holding(str(table["task"][0])):
            return table


class Spoken(Silent):
    """Prints every new state, and knows whether it has been waiting."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.waited = threading.Event()

    def actors(self, actors: Actors) -> None:
        print(f"{self._name}: {actors}", flush=True)
        if actors.waiting:
            self.waited.set()


def streamed(spoken: Spoken, folder: Path) -> Any:
    tasks, spec = pa.table({"task": [0, 1, 2]}), Watched(output_url=str(folder))
    return sorted(row["task"] for row in stream(tasks, Modest, spec, ONE, progress=spoken))


def measured(spoken: Spoken, folder: Path) -> Any:
    source = garments(folder / "source", shots=1, classes=1)
    settings = {**PLAIN, "source.url": str(source), "output.url": str(folder / "out"), "commit.chunk_size": 1}
    run = prepare(from_flat(settings))
    settle_batches(run, ONE, spoken)
    return [run.config.inversion.micro_batch, run.config.generation.micro_batch]


def learned(spoken: Spoken, folder: Path) -> Any:
    with watching(1, spoken) as board:
        return learn(replace(test_learner.spec(folder), board=board), gpus=1).about["steps"]


STAGES: dict[str, Callable[[Spoken, Path], Any]] = {"stream": streamed, "measure": measured, "learn": learned}


def main() -> None:
    folder = Path(sys.argv[1])
    os.environ.update({"RAY_AUTH_MODE": "disabled", "RAY_BACKEND_LOG_LEVEL": "fatal"})
    progress_module.STARTING_SECONDS = 4.0
    head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    hide_reports()
    spoken = {name: Spoken(name) for name in STAGES}
    found: dict[str, Any] = {}

    def work(name: str) -> None:
        found[name] = STAGES[name](spoken[name], folder / name)

    threads = [threading.Thread(target=work, args=(name,)) for name in STAGES]
    for thread in threads:
        thread.start()
    for name in STAGES:
        assert spoken[name].waited.wait(120), name
    time.sleep(5)
    print("a node joins", flush=True)
    # In the main thread, where its signal handler can be set.
    cluster.add_node(num_cpus=3, num_gpus=3, object_store_memory=100 * 2**20)
    for thread in threads:
        thread.join(200)
    for name, result in found.items():
        print(f"{name}: made {result}", flush=True)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
