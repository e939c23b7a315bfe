"""Who looks where: this machine, every machine of the Ray that it is part of, or a cluster by a short job there."""

from __future__ import annotations

import dataclasses
import json
import secrets
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.doctor.facts import Facts, facts
from cluster.doctor.finding import Finding, together
from cluster.doctor.machines import check_clock, check_disk, check_gpu, check_open_files, check_shm, check_versions
from cluster.doctor.model import check_attention, check_model, check_source
from cluster.doctor.storage import check_storage
from cluster.run_file import RUN_FILE, to_yaml
from diffii.errors import ClusterError
from engine.config import Config

NODE_SECONDS = 180.0
"""A machine that does not answer for so long is said to be silent. Its process imports torch before it does."""
JOB_SECONDS = 600.0
_MACHINE = (check_gpu, check_disk, check_shm, check_open_files, check_clock)
SILENT_MEND = "look at its logs (ray logs), or wait until what holds its GPU is done"


def here(config: Config | None) -> list[Finding]:
    """What is to be said of this machine."""
    mine = facts()
    return together(
        [*check_versions([mine], mine), *(check(mine) for check in _MACHINE), *run_needs(config, mine.node)]
    )


def run_needs(config: Config | None, node: str = "") -> list[Finding]:
    """What a run needs of the machine that this process is on; without a configuration nothing is known."""
    if config is None:
        return []
    found = [check_attention(config, node), check_model(config, node)]
    found += [check_source(config, node)] if config.source.url else []
    return found + (check_storage(config.output.url, node) if config.output.url else [])


def in_ray(config: Config | None) -> list[Finding]:
    """What is to be said of every machine of the cluster that this process is a driver of."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=0)(_look)
    clock = ray.remote(num_cpus=0, max_retries=0)(_clock)
    machines, found = [], []
    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = {}
    for node in nodes:
        size = node["Resources"]
        gpus = float(size.get("GPU", 0.0))
        where: dict[str, Any] = {"scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)}
        # A task that asks for no GPU is shown none.
        seeing = {**where, "num_gpus": 0.01} if gpus else where
        store = int(size.get("object_store_memory", 0))
        asked[node["NodeID"]] = (node, where, look.options(**seeing).remote(config, gpus, store))
    for node, where, answer in asked.values():
        name = node["NodeManagerHostname"]
        try:
            machine, needs = ray.get(answer, timeout=NODE_SECONDS)
            before = time.time()
            there = ray.get(clock.options(**where).remote(), timeout=NODE_SECONDS)
            machine = dataclasses.replace(machine, clock_offset=_offset(before, there, time.time()))
        except (RayError, TimeoutError) as error:
            said = f"does not answer ({type(error).__name__})"
            found.append(Finding("machine", said, SILENT_MEND, name))
            continue
        machines.append(machine)
        found += [*(check(machine) for check in _MACHINE), *needs]
    return together([*check_versions(machines, facts()), *found])


def _look(config: Config | None, gpus: float, object_store: int) -> tuple[Facts, list[Finding]]:
    mine = facts(ray_gpus=gpus, object_store=object_store)
    return mine, run_needs(config, mine.node)


def _clock() -> float:
    # Ray takes no built-in function.
    return time.time()


def _offset(before: float, there: float, after: float) -> float:
    """How far a clock is off for certain: outside of the time in which it was asked."""
    return there - after if there > after else there - before if there < before else 0.0


def by_job(address: str, config: Config | None) -> list[Finding]:
    """The same of the cluster whose dashboard this is, found out by a job there."""
    from cluster.access import answering, connect
    from cluster.submit import ENDED, ENVIRONMENT

    try:
        jobs = connect(address)
        name = f"diffii-doctor-{secrets.token_hex(4)}"
        with tempfile.TemporaryDirectory() as folder, answering(address):
            (Path(folder) / RUN_FILE).write_text(to_yaml(config) if config else "", encoding="utf-8")
            given = f" --config {RUN_FILE}" if config else ""
            jobs.submit_job(
                entrypoint=f"python -m cluster.cli doctor --address auto --json{given}",
                submission_id=name,
                runtime_env={"working_dir": folder, "env_vars": dict(ENVIRONMENT)},
            )
            deadline = time.monotonic() + JOB_SECONDS
            while jobs.get_job_status(name).value.lower() not in ENDED:
                if time.monotonic() > deadline:
                    jobs.stop_job(name)
                    break
                time.sleep(1.0)
            log = jobs.get_job_logs(name)
    except ClusterError as error:
        return [Finding("cluster", str(error), "then look again")]
    return [Finding("cluster", f"{address} answers"), *_answers(log)]


def _answers(log: str) -> Sequence[Finding]:
    for line in reversed(log.splitlines()):
        if line.startswith('{"findings"'):
            return [Finding(**fields) for fields in json.loads(line)["findings"]]
    last = (log.strip().splitlines() or ["no word"])[-1]
    if "No module named" in last:
        mend = (
            "install diffii in the environment in which `ray start` is called, and activate it: jobs run its `python`"
        )
        return [Finding("cluster", f"the cluster's python does not know diffii: {last}", mend)]
    return [
        Finding("cluster", f"the job that was to look there did not: {last}", "run this image's doctor there by hand")
    ]
