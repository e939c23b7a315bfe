"""One training of a classifier: what it learns from, how, and what it is asked to name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from diffii.dataset.labelled import Labelled
from diffii.dataset.mixing import Mixing
from diffii.hashing import seed64

Blend = Literal["", "mixup", "cutmix"]
"""How real images are blended with one another while training; not at all by default."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that a training's result follows from."""

    classes: int
    real: Labelled
    synthetic: Labelled | None = None
    held: Labelled
    """Images to name; their labels are not looked at."""
    p: float = 0.0
    """Probability that a synthetic image takes a real one's place, or that a batch is blended."""
    lr: float
    balanced: bool = False
    """The long-tail draw: see `diffii.mix`."""
    blend: Blend = ""
    seed: int = 0
    long_tailed: bool = False
    """A model by name is trained on the paper's schedule for a long tail."""
    cache: Path | None = None
    """A folder where what is computed once per image may be kept."""

    @property
    def mixing(self) -> Mixing:
        """Where synthetic images stand, epoch by epoch."""
        made = self.synthetic
        labels = made.labels if made is not None else np.empty(0, np.int64)
        p = self.p if made is not None else 0.0
        return Mixing(self.real.labels, labels, self.classes, p, self.balanced, self.seed)


class Classifier(Protocol):
    """Trains from a seed and names images: the same job gives the same answer on one machine."""

    name: str
    learning_rates: tuple[float, ...]
    """What a tuning tries; the middle one is taken where nothing is tuned."""

    def __call__(self, job: Job) -> np.ndarray:
        """Predicted labels of `job.held`, int64, of the network after its last step."""
        ...


Batch = tuple[np.ndarray, np.ndarray]


def batches(job: Job, size: int) -> Iterator[Batch]:
    """Batches without end: (is synthetic (size,), number in its set (size,)); epochs follow one another without a gap.

    So a set smaller than a batch gives whole batches too, and as many steps are as much work for any set.
    """
    rng = np.random.Generator(np.random.Philox(seed64(job.seed, "order")))
    mixing, epoch = job.mixing, 0
    synthetic, index = np.empty(0, bool), np.empty(0, np.int64)
    while True:
        while len(index) < size:
            places = mixing.epoch(epoch)
            order = rng.permutation(len(places.index))
            synthetic = np.concatenate([synthetic, places.synthetic[order]])
            index = np.concatenate([index, places.index[order]])
            epoch += 1
        yield synthetic[:size], index[:size]
        synthetic, index = synthetic[size:], index[size:]


def targets(job: Job, smoothing: float) -> tuple[np.ndarray, np.ndarray]:
    """Label distributions of the real and the synthetic images, float32 (N, K), with label smoothing."""
    none = np.empty((0, job.classes), np.float32)
    return _distributions(job.real, job, smoothing), (
        none if job.synthetic is None else _distributions(job.synthetic, job, smoothing)
    )


def _distributions(images: Labelled, job: Job, smoothing: float) -> np.ndarray:
    rows = np.arange(len(images.labels))
    found = np.zeros((len(rows), job.classes), np.float32)
    np.add.at(found, (rows, images.other_labels), 1.0 - images.weights)
    np.add.at(found, (rows, images.labels), images.weights)
    return ((1.0 - smoothing) * found + smoothing / job.classes).astype(np.float32)


def warm_cosine(step: int, steps: int, warmup: float = 0.1) -> float:
    """Share of the learning rate at a step: linear over the first tenth, then half a cosine to zero."""
    first = max(1, round(warmup * steps))
    if step < first:
        return (step + 1) / first
    return 0.5 * (1.0 + float(np.cos(np.pi * (step - first) / max(1, steps - first))))
