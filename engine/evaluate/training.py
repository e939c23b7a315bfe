"""One training: a draw, an arm's set, a classifier; a Ray task of its own."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffii.classifiers import Job, classifier
from diffii.dataset.labelled import Labelled, labelled
from diffii.dataset.snapshot import open_snapshot
from diffii.errors import OutputError
from diffii.hashing import seed64
from diffii.protocols.task import Sample, Task, score
from engine.evaluate.study import BLENDS
from engine.evaluate.tasks import Questions, draw


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What is trained, and on what it is measured."""

    questions: Questions
    seed: int
    arm: str
    set_url: str
    """Where the arm's synthetic images are; "" without any."""
    classifier: str
    p: float
    lr: float
    choosing: bool
    """Measure on the images that settings are chosen on; else on the test images."""
    cache: str
    """A folder for what is computed once per image; "" for none."""
    trainings: int = 1
    """How many networks are trained, from seeds of their own; their figures are averaged."""


def train(order: Training) -> dict[str, Any]:
    """Train and measure: accuracy, groups and partitions in percent, and how many images and seconds it took."""
    began = time.monotonic()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    task = draw(order.questions, order.seed)
    held = task.validation if order.choosing else task.test
    made = labelled(open_snapshot(order.set_url)) if order.set_url else None
    if made is not None and made.classes != task.classes:
        raise OutputError(f"{order.set_url} has other classes than {task.name}; move it away, it will be made again")
    job = Job(
        classes=len(task.classes),
        real=_labelled(task.train),
        synthetic=made,
        held=_labelled(held),
        p=order.p,
        lr=order.lr,
        balanced=order.questions.long_tailed,
        blend=BLENDS.get(order.arm, ""),
        seed=order.seed,
        long_tailed=order.questions.long_tailed,
        cache=Path(order.cache) if order.cache else None,
    )
    found: list[dict[str, float | None]] = []
    for number in range(order.trainings):
        seed = seed64(order.seed, "training", number) if number else order.seed
        predicted = classifier(order.classifier)(replace(job, seed=seed))
        if order.choosing:
            found.append({"accuracy": 100 * float((predicted == job.held.labels).mean())})
        else:
            found.append(_figures(task, predicted))
    counts = {"real": len(task.train), "synthetic": len(made.labels) if made is not None else 0}
    return {**_average(found), **counts, "seconds": time.monotonic() - began}


def _average(found: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    """Each figure's mean; a figure that a task does not have stays None."""
    values = {name: [one[name] for one in found] for name in found[0]}
    return {name: None if None in many else float(np.mean(many)) for name, many in values.items()}  # pyright: ignore


def _figures(task: Task, predicted: np.ndarray) -> dict[str, float | None]:
    found = score(task, predicted)
    parts = {name: found.partitions.get(name) for name in ("few", "novel", "many", "medium", "base")}
    sizes = set(Counter(sample.group for sample in task.test).values())
    return {
        "accuracy": found.accuracy,
        "worst_group": found.worst_group if len(task.groups) > 1 else None,
        "group_average": found.group_average if len(sizes) > 1 else None,
        **parts,
    }


def _labelled(samples: Sequence[Sample]) -> Labelled:
    labels = np.array([sample.label for sample in samples], np.int64)
    return Labelled(labels, (), lambda number: samples[number].image(), labels, np.ones(len(labels)))
