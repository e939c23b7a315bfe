"""The learner: concepts of a data set, learned by one or more workers under Ray Train.

Ray Train places the workers, joins them by torch.distributed and starts them again when one dies. The state is ours:
its checkpoints cannot give the same bytes after a death, and hold pickles. So a worker reports nothing to Ray Train.

    _diffii/concepts/job-<key>/checkpoint-<step>.safetensors      the newest two
    _diffii/concepts/job-<key>/result.json                        the digest of what was learned; written last
    _diffii/concepts/<digest>/                                    the concepts (see diffii.concepts.files)
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from actors.model import ModelSpec, load
from diffii.concepts.files import FOLDER, read_concepts, save_concepts
from diffii.concepts.learning import Lesson
from diffii.concepts.loop import learn as learn_here
from diffii.concepts.record import Concepts
from diffii.concepts.settings import LearnSettings
from diffii.concepts.workers import Workers
from diffii.dataset.storage import Storage
from diffii.errors import DiffiiError, ModelError, SourceError
from diffii.hashing import digest, sha256
from diffii.images import ACCEPTED, Fit, UnreadableImage, decode, fit, named
from diffii.sources import opener

MAX_FAILURES = 8
"""Deaths of a worker until learning is given up. Preempted nodes do not count."""
POST_EVERY = 10
"""Steps between two posts of progress."""

Watch = Callable[[int, int, float], None]
"""Told on the driver: steps done, steps at most, loss of the latest rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerSpec:
    """What is learned, from what, and where it goes."""

    model: ModelSpec
    weights: str
    """`diffii.weights.weights_digest` of the model."""
    source_url: str
    output_url: str
    images: tuple[tuple[str, str], ...]
    """(place below source_url, SHA-256) of each image, in the order of the lesson's labels."""
    lesson: Lesson
    settings: LearnSettings = field(default_factory=LearnSettings)
    workers: int = 1
    fit: Fit = "crop"
    """How images become square."""
    base: str = ""
    """Digest of concepts in the output that stay as they are: only tokens of classes with images are learned."""

    @property
    def key(self) -> str:
        """Names the job: everything that the concepts follow from."""
        lesson = self.lesson
        about = [list(lesson.classes), list(lesson.words), list(lesson.labels), list(lesson.contexts)]
        images = [image for _, image in self.images]
        model = [self.weights, self.model.dtype, lesson.template, lesson.metaclass]
        more = [*named(self.fit).items(), *(["base", self.base] if self.base else [])]
        return digest(about, images, model, self.settings.to_dict(), self.workers, *more)[:32]

    @property
    def folder(self) -> str:
        return f"{FOLDER}/job-{self.key}"


def learn(spec: LearnerSpec, *, gpus: float = 0, watch: Watch | None = None) -> Concepts:
    """Learn, or go on with what an earlier driver began, or open what is done; a Ray must be up.

    `gpus` is per worker; 0 learns on the CPU. A dead worker is replaced and learning goes on from the newest
    checkpoint. Raises ModelError, SourceError or OutputError as a worker met it, RuntimeError when workers keep dying.
    """
    storage = Storage(spec.output_url)
    if (done := finished(spec, storage)) is not None:
        return done
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Beside the driver: a node that the cloud takes back must not take the board with it.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    kind: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": here, "max_restarts": -1, "max_task_retries": 3}
    board: Any = cast(Any, ray.remote(Board)).options(**kind).remote()
    ends: list[Exception | None] = []
    # Not in the main thread, where Ray Train would take over Ctrl-C and never give it back.
    fit = threading.Thread(target=lambda: ends.append(_fit(spec, gpus, board)), daemon=True)
    try:
        fit.start()
        last = None
        while fit.is_alive():
            fit.join(1.0)
            posted: tuple[int, float] | None = cast(Any, ray.get(board.posted.remote()))
            if watch is not None and posted is not None and posted != last:
                watch(posted[0], spec.settings.steps, posted[1])
            last = posted
        found: DiffiiError | None = cast(Any, ray.get(board.trouble.remote()))
    finally:
        # Without it the workers end too, should this driver have been interrupted.
        ray.kill(board)
    if found is not None:
        raise found
    if ends and ends[0] is not None:
        raise RuntimeError(f"learning was given up after {MAX_FAILURES} deaths: {ends[0]}") from ends[0]
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


def concepts_folder(concepts_digest: str) -> str:
    """Where concepts of a digest lie in a data set."""
    return f"{FOLDER}/{concepts_digest[:32]}"


class Board:
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


def _fit(spec: LearnerSpec, gpus: float, board: Any) -> Exception | None:
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
            _work,
            train_loop_config={"spec": spec, "board": board},
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


def _work(config: dict[str, Any]) -> None:
    """What each worker runs."""
    import ray
    import ray.train

    spec, board = config["spec"], config["board"]
    context = ray.train.get_context()
    workers = Workers(context.get_world_rank(), context.get_world_size())
    if ray.get(board.trouble.remote()) is not None:
        return

    def post(step: int, loss: float) -> None:
        if workers.rank == 0 and step % POST_EVERY == 0:
            ray.get(board.post.remote(step, loss))

    try:
        _learn(spec, workers, post)
    except DiffiiError as error:
        ray.get(board.give_up.remote(error))
        if workers.count > 1:
            # Alone it may simply end. Others may be waiting for it: ended together, all find the board's word.
            raise


def _learn(spec: LearnerSpec, workers: Workers, post: Callable[[int, float], None]) -> None:
    storage = Storage(spec.output_url)
    backbone = load(spec.model)
    concepts = learn_here(
        backbone,
        spec.lesson,
        _images(spec, backbone.image_size),
        spec.settings,
        storage=storage,
        folder=spec.folder,
        workers=workers,
        watch=post,
        base=read_concepts(storage, concepts_folder(spec.base)) if spec.base else None,
    )
    if workers.rank == 0:
        save_concepts(concepts, storage, concepts_folder(concepts.digest))
        storage.put_once(f"{spec.folder}/result.json", json.dumps({"digest": concepts.digest}).encode())


def _images(spec: LearnerSpec, size: int) -> Iterator[np.ndarray]:
    read = opener(spec.source_url)
    for where, expected in spec.images:
        place = f"{spec.source_url}/{where}"
        try:
            data = read(where)
            if sha256(data) != expected:
                raise SourceError(f"{place} has changed since it was planned; restore it or use another output")
            yield fit(decode(data, ACCEPTED), size, spec.fit)
        except (UnreadableImage, OSError) as error:
            raise SourceError(f"{place} was readable when it was planned and no longer is: {error}") from error
