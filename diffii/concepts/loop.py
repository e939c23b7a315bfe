"""From images to concepts: learn, write checkpoints on the way, go on from the newest one after a death."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch

from diffii.backbone import Backbone
from diffii.concepts.checkpoints import restore_checkpoint, steps_of, write_checkpoint
from diffii.concepts.learning import Learner, encode_images
from diffii.concepts.lesson import Lesson
from diffii.concepts.record import Concepts
from diffii.concepts.settings import LearnSettings
from diffii.concepts.workers import ALONE, Workers
from diffii.dataset.storage import Storage
from diffii.errors import ModelError
from diffii.model_checks import one_line

Watch = Callable[[int, float], None]
"""Told after every step: how many are done, and this worker's loss on its rows."""


def learn(
    backbone: Backbone,
    lesson: Lesson,
    images: Iterable[np.ndarray],
    settings: LearnSettings,
    *,
    storage: Storage | None = None,
    folder: str = "",
    workers: Workers = ALONE,
    watch: Watch | None = None,
    base: Concepts | None = None,
) -> Concepts:
    """Learn the concepts of `images` (uint8, (S, S, 3), in the order of the lesson's labels).

    Checkpoints lie in `folder` of `storage`, if that is given. With `base` its LoRA and tokens stay, but for those of
    classes that have images here. The backbone comes back without concepts.
    Raises ModelError when a prompt has no room for its tokens, learning diverges or the card is too small, OutputError
    for a checkpoint of another run.
    """
    try:
        return _learn(backbone, lesson, images, settings, storage, folder, workers, watch, base)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"learning does not fit on {backbone.record.device} ({one_line(error)}); set learn.batch lower than "
            f"{settings.batch}, or learn.tokens and learn.rank, or give learning a card of its own"
        ) from error


def _learn(
    backbone: Backbone,
    lesson: Lesson,
    images: Iterable[np.ndarray],
    settings: LearnSettings,
    storage: Storage | None,
    folder: str,
    workers: Workers,
    watch: Watch | None,
    base: Concepts | None,
) -> Concepts:
    learner = Learner(backbone, lesson, encode_images(backbone, images, settings.flip), settings, workers, base)
    try:
        if storage is not None:
            _resume(learner, storage, folder, workers)
        while not learner.finished:
            loss = learner.step()
            if watch is not None:
                watch(learner.progress.step, loss)
            due = settings.checkpoint_every and learner.progress.step % settings.checkpoint_every == 0
            if storage is not None and due:
                learner.gather()
                if workers.rank == 0:
                    write_checkpoint(learner, storage, folder)
        learner.gather()
        return learner.result()
    finally:
        learner.release()


def _resume(learner: Learner, storage: Storage, folder: str, workers: Workers) -> None:
    """Take up the newest checkpoint; the first worker says which that is."""
    newest = torch.zeros(1, dtype=torch.float64)
    if workers.rank == 0:
        newest += max(steps_of(storage, folder), default=0)
    workers.add([newest])
    if newest:
        restore_checkpoint(learner, storage, folder, int(newest))
