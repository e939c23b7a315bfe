"""From images to concepts: learn, write checkpoints on the way, go on from the newest one after a death."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch

from diffii.backbone import Backbone
from diffii.concepts.checkpoints import restore_checkpoint, steps_of, write_checkpoint
from diffii.concepts.learning import Learner
from diffii.concepts.lesson import Lesson
from diffii.concepts.losses import encode_images
from diffii.concepts.record import Concepts
from diffii.concepts.settings import LearnSettings
from diffii.concepts.workers import ALONE, Workers
from diffii.dataset.storage import Storage
from diffii.errors import ModelError
from diffii.memory import no_memory
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
    except (RuntimeError, MemoryError) as error:
        if not no_memory(error):
            raise
        raise ModelError(
            f"learning does not fit on {backbone.record.device} ({one_line(error)}); set {_smaller(settings)}, or give "
            "learning a card of its own"
        ) from error


def _smaller(settings: LearnSettings) -> str:
    if settings.micro_batch > 1 and settings.batch > 1:
        return f"learn.micro_batch lower than {min(settings.micro_batch, settings.batch)}"
    return "learn.rank and learn.tokens lower"


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
    latents = encode_images(backbone, images, settings.flip, settings.micro_batch)
    learner = Learner(backbone, lesson, latents, settings, workers, base)
    try:
        if storage is not None:
            _resume(learner, storage, folder, workers, backbone.device)
        while not learner.finished:
            loss = learner.step()
            if watch is not None:
                watch(learner.progress.step, loss)
            due = settings.checkpoint_every and learner.progress.step % settings.checkpoint_every == 0
            if storage is not None and due and workers.rank == 0:
                write_checkpoint(learner, storage, folder)
        return learner.result()
    finally:
        learner.release()


def _resume(learner: Learner, storage: Storage, folder: str, workers: Workers, device: torch.device) -> None:
    """Take up the newest checkpoint; the first worker says which that is."""
    newest = max(steps_of(storage, folder), default=0) if workers.rank == 0 else 0
    newest = workers.agree(newest, device)
    if newest:
        restore_checkpoint(learner, storage, folder, newest)
