"""A worker that learns: loads the model, reads the images, goes on from the newest checkpoint, and says how it gets on.

Its desk is known by its rank: Ray Train puts another process in the place of one that died.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from actors.attempts import Process
from actors.board import COMPUTING
from actors.desk import Desk, Hold
from actors.lesson_spec import LearnerSpec, concepts_folder
from actors.model import load
from actors.preemption import ray_node
from diffii.concepts.files import read_concepts, save_concepts
from diffii.concepts.loop import Watch
from diffii.concepts.loop import learn as learn_here
from diffii.concepts.workers import Workers
from diffii.dataset.storage import Storage
from diffii.errors import DiffiiError, SourceError
from diffii.hashing import sha256
from diffii.images import ACCEPTED, UnreadableImage, decode, fit
from diffii.sources import opener

POST_EVERY = 10
"""Steps between two posts of progress."""


def work(config: dict[str, Any]) -> None:
    """What each worker runs: `spec`, and `minutes`, the handle of `actors.learner.Minutes`."""
    import ray
    import ray.train

    spec, minutes = config["spec"], config["minutes"]
    context = ray.train.get_context()
    workers = Workers(context.get_world_rank(), context.get_world_size())
    if ray.get(minutes.trouble.remote()) is not None:
        return

    def post(step: int, loss: float) -> None:
        if workers.rank == 0 and step % POST_EVERY == 0:
            ray.get(minutes.post.remote(step, loss))

    try:
        _learn(spec, workers, post)
    except DiffiiError as error:
        ray.get(minutes.give_up.remote(error))
        if workers.count > 1:
            # Alone it may simply end. Others may be waiting for it: ended together, all find the minutes' word.
            raise


def _learn(spec: LearnerSpec, workers: Workers, post: Watch) -> None:
    desk = Desk(spec, Process(spec.run, ray_node()), place=f"worker {workers.rank}")
    storage = Storage(spec.output_url)
    backbone = load(spec.model)
    desk.open()
    with desk.holding(f"the lesson of worker {workers.rank}") as hold:

        def watch(step: int, loss: float) -> None:
            hold.moved()
            post(step, loss)

        concepts = learn_here(
            backbone,
            spec.lesson,
            _images(spec, backbone.image_size, hold),
            spec.settings,
            storage=storage,
            folder=spec.folder,
            workers=workers,
            watch=watch,
            base=read_concepts(storage, concepts_folder(spec.base)) if spec.base else None,
        )
    if workers.rank == 0:
        save_concepts(concepts, storage, concepts_folder(concepts.digest))
        storage.put_once(f"{spec.folder}/result.json", json.dumps({"digest": concepts.digest}).encode())


def _images(spec: LearnerSpec, size: int, hold: Hold) -> Iterator[np.ndarray]:
    read = opener(spec.source_url)
    for where, expected in spec.images:
        place = f"{spec.source_url}/{where}"
        try:
            data = read(where)
            if sha256(data) != expected:
                raise SourceError(f"{place} has changed since it was planned; restore it or use another output")
            pixels = fit(decode(data, ACCEPTED), size, spec.fit)
        except (UnreadableImage, OSError) as error:
            raise SourceError(f"{place} was readable when it was planned and no longer is: {error}") from error
        hold.moved()
        yield pixels
    hold.at(COMPUTING)
