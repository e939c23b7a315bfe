"""A task: what a classifier is trained on, chosen on and measured on, and how its accuracy is told apart.

Images are opened when they are used: a task of ten thousand is a few megabytes of names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import fsspec
import numpy as np
from PIL import Image

from diffii.errors import SourceError
from diffii.images import UnreadableImage, decode


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image."""

    where: str
    """A path or fsspec URL; a mere name when `pixels` holds the image."""
    label: int
    """Into `Task.classes`."""
    group: int = 0
    """Into `Task.groups`."""
    pixels: np.ndarray | None = None
    """uint8 (H, W, 3), for images that lie in no file of their own."""

    def image(self) -> Image.Image:
        """RGB, upright. Raises SourceError naming the file when it cannot be read."""
        if self.pixels is not None:
            return Image.fromarray(self.pixels)
        try:
            return decode(self.read())
        except UnreadableImage as error:
            raise SourceError(f"{self.where} is not a usable image ({error}); restore it from the archive") from error

    def read(self) -> bytes:
        """The bytes of the file. Raises SourceError naming it when there is none."""
        try:
            with fsspec.open(self.where, "rb") as file:
                return file.read()  # pyright: ignore[reportAttributeAccessIssue]
        except OSError as error:
            raise SourceError(f"{self.where} cannot be read ({error}); restore it from the archive") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A figure that somebody else has measured on this task, to stand beside ours."""

    method: str
    accuracy: float
    """Percent."""
    classifier: str = "ResNet-50"
    metric: str = "accuracy"
    """`accuracy`: over the whole test set; `average`: over its groups, each counted once; else a partition's name."""
    source: str = "Diff-II, CVPR 2025"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One draw of a protocol. Labels are the same in all three sets."""

    name: str
    """The protocol's name, such as `cub-fewshot`."""
    seed: int
    """What the training images were drawn by; another seed is another draw."""
    shots: int | None = None
    """Training images per class, where that is what the task is about."""
    imbalance: int | None = None
    """Imbalance factor of a long tail: the head's share of the tail's."""
    metaclass: str = ""
    """The data set's theme, as `prompts.metaclass` wants it."""
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    """What is expanded and learned from."""
    validation: tuple[Sample, ...]
    """What settings are chosen on; disjoint from the two others. Classes may be missing from it."""
    test: tuple[Sample, ...]
    """What is reported, once."""
    groups: tuple[str, ...] = ("all",)
    """Names of the test images' groups; with more than one, average and worst are reported."""
    partitions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Name -> labels whose accuracy is told apart: many, medium and few shots; novel and base classes."""
    published: tuple[Published, ...] = ()
    rules: tuple[str, ...] = ()
    """How the draw was made, in words for a report."""

    def __post_init__(self) -> None:
        for name, samples in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            if any(not 0 <= sample.label < len(self.classes) for sample in samples):
                raise ValueError(f"{self.name}: a label of {name} is outside the {len(self.classes)} classes")
        if any(not 0 <= sample.group < len(self.groups) for sample in self.test):
            raise ValueError(f"{self.name}: a test image's group is outside the {len(self.groups)} groups")
        if not self.train or not self.test:
            raise ValueError(f"{self.name}: a task has images to train on and images to measure on")

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Training images per class."""
        found = Counter(sample.label for sample in self.train)
        return tuple(found[label] for label in range(len(self.classes)))


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracies in percent; groups and partitions without a test image are left out."""

    accuracy: float
    groups: dict[str, float]
    partitions: dict[str, float]

    @property
    def group_average(self) -> float:
        """Each group counts once, however many images it has."""
        return float(np.mean(list(self.groups.values())))

    @property
    def worst_group(self) -> float:
        return min(self.groups.values())


def score(task: Task, predicted: Sequence[int] | np.ndarray) -> Score:
    """What predictions of the test images, in their order, are worth. Raises ValueError for another number of them."""
    if len(predicted) != len(task.test):
        raise ValueError(f"{task.name}: {len(predicted)} predictions for {len(task.test)} test images")
    labels = np.array([sample.label for sample in task.test])
    group = np.array([sample.group for sample in task.test])
    right = labels == np.asarray(predicted)
    groups = {name: right[group == index] for index, name in enumerate(task.groups)}
    partitions = {name: right[np.isin(labels, members)] for name, members in task.partitions.items()}
    return Score(
        100 * float(right.mean()),
        {name: 100 * float(rows.mean()) for name, rows in groups.items() if rows.size},
        {name: 100 * float(rows.mean()) for name, rows in partitions.items() if rows.size},
    )
