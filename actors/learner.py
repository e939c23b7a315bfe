"""The learner: concepts of a data set, learned by one or more workers under Ray Train.

Ray Train places the workers, joins them by torch.distributed and starts them again when one dies. The state is ours:
its checkpoints cannot give the same bytes after a death, and hold pickles. So a worker reports nothing to Ray Train.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable
from typing import Any, cast

from actors.learn_worker import work
from actors.lesson_spec import LearnerSpec, concepts_folder
from diffii.concepts.files import read_concepts
from diffii.concepts.record import Concepts
from diffii.dataset.storage import Storage
from diffii.errors import DiffiiError, ModelError

MAX_FAILURES = 8
"""Deaths of a worker until learning is given up. Preempted nodes do not count."""

Watch = Callable[[int, int, float], None]
"""Told on the driver: steps done, steps at most, loss of the latest rows."""


def learn(spec: LearnerSpec, *, gpus: float = 0, watch: Watch | None = None) -> Concepts:
    """Learn, or go on with what an earlier driver began, or open what is done; a Ray must be up.

    `gpus` is per worker; 0 learns on the CPU. A dead worker is replaced and learning goes on from the newest
    checkpoint. Raises ModelError, SourceError or OutputError as a worker met it, ModelError when workers keep dying.
    """
    storage = Storage(spec.output_url)
    if (done := finished(spec, storage)) is not None:
        return done
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Beside the driver: a node that the cloud takes back must not take the minutes with it.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    kind: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": here, "max_restarts": -1, "max_task_retries": 3}
    minutes: Any = cast(Any, ray.remote(Minutes)).options(**kind).remote()
    ends: list[Exception | None] = []
    # Not in the main thread, where Ray Train would take over Ctrl-C and never give it back.
    fit = threading.Thread(target=lambda: ends.append(_fit(spec, gpus, minutes)), daemon=True)
    try:
        fit.start()
        last = None
        while fit.is_alive():
            fit.join(1.0)
            posted: tuple[int, float] | None = cast(Any, ray.get(minutes.posted.remote()))
            if watch is not None and posted is not None and posted != last:
                watch(posted[0], spec.settings.steps, posted[1])
            last = posted
        found: DiffiiError | None = cast(Any, ray.get(minutes.trouble.remote()))
    finally:
        # Without it the workers end too, should this driver have been interrupted.
        ray.kill(minutes)
    if found is not None:
        raise found
    if ends and ends[0] is not None:
        raise ModelError(
            f"learning was given up after {MAX_FAILURES} deaths of its workers: {_last_line(ends[0])}; look at the "
            "host's memory, the card and its driver, and at the last lines of the workers' logs (ray logs); the same "
            "command goes on from the newest checkpoint"
        ) from ends[0]
    concepts = finished(spec, storage)
    if concepts is None:
        raise RuntimeError(f"the workers ended, but there is no {spec.folder}/result.json in {storage.url}")
    return concepts


def finished(spec: LearnerSpec, storage: Storage) -> Concepts | None:
    """What this very job has learned, if it is done. Raises ModelError when its files are damaged."""
    data = storage.read_or_none(f"{spec.folder}/result.json")
    if data is None:
        return None
    try:
        return read_concepts(storage, concepts_folder(json.loads(data)["digest"]))
    except FileNotFoundError as error:
        raise ModelError(
            f"{storage.url}/{spec.folder} says that concepts were learned, but they are gone: remove that folder"
        ) from error


def _last_line(error: Exception) -> str:
    """Ray tells a worker's whole traceback; its last line is what was raised."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


class Minutes:
    """Made into a Ray actor: what the first worker posts, and the error that no new try would mend."""

    def __init__(self) -> None:
        self._post: tuple[int, float] | None = None
        self._trouble: DiffiiError | None = None

    def post(self, step: int, loss: float) -> None:
        self._post = (step, loss)

    def posted(self) -> tuple[int, float] | None:
        return self._post

    def give_up(self, trouble: DiffiiError) -> None:
        self._trouble = self._trouble or trouble

    def trouble(self) -> DiffiiError | None:
        return self._trouble


def _fit(spec: LearnerSpec, gpus: float, minutes: Any) -> Exception | None:
    """Run the workers; the reason if they ended without a result."""
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    from ray.exceptions import RayError
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import LoggingConfig
    from ray.train.v2.api.exceptions import TrainingFailedError

    # Ray Train wants a folder for checkpoints, of which it gets none; what it writes there is gone at the end.
    with tempfile.TemporaryDirectory(prefix="diffii-") as scratch:
        trainer = TorchTrainer(
            work,
            train_loop_config={"spec": spec, "minutes": minutes},
            scaling_config=ScalingConfig(
                num_workers=spec.workers,
                use_gpu=gpus > 0,
                resources_per_worker={"CPU": 1, **({"GPU": gpus} if gpus else {})},
            ),
            run_config=RunConfig(
                name="learn",
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
                logging_config=LoggingConfig(log_level="CRITICAL"),
            ),
            # One worker has nobody to talk to, and may be where there is no NCCL: a GPU that Ray only counts.
            torch_config=TorchConfig(backend="nccl" if gpus and spec.workers > 1 else "gloo"),
        )
        try:
            trainer.fit()
        except (TrainingFailedError, RayError) as error:
            return error
    return None
