"""Which task is measured: a protocol by name, or the user's own folders; any draw of it by its seed.

A draw is made again wherever it is needed, so that no image travels between processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from diffii.errors import ConfigError, SourceError
from diffii.garments import tasks as garments
from diffii.images import ACCEPTED, decode
from diffii.protocols import paper
from diffii.protocols.task import Sample, Task
from diffii.sources import open_source
from diffii.sources.folder import ImageFolder
from diffii.sources.hub import PREFIX as HUB
from engine.scan import read_source
from engine.source import Source

TUNING_SEED = 1000
"""First of the seeds that settings are chosen on; those that are reported lie below."""
_HELD_SHARE = 5
"""Without images to choose on, one in so many of each class is kept apart while choosing."""
GARMENTS = (garments.FEW_SHOT, garments.LONG_TAIL, garments.OUT_OF_DISTRIBUTION)
PROTOCOLS = (*GARMENTS, *paper.NAMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """A family of tasks, one per seed. Either `protocol`, or `source` and `test`."""

    protocol: str = ""
    shots: int = 5
    imbalance: int = 100
    root: str = ""
    """Where the paper's data set is unpacked."""
    source: str = ""
    """Images to train on, in any form of `source.url`; every seed takes them all."""
    test: str = ""
    """Images to measure on; classes are matched by name."""
    validation: str = ""
    """Images to choose settings on. Without them, a fifth of the source is kept apart while choosing, and only then."""

    def __post_init__(self) -> None:
        if bool(self.protocol) == bool(self.source):
            raise ConfigError("give either --protocol, or --source and --test with images of your own")
        if self.source and not self.test:
            raise ConfigError("--test is missing: labelled images to measure on, which are not in --source")
        if self.protocol and (self.test or self.validation):
            raise ConfigError(f"--test and --validation go with --source; --protocol {self.protocol} has its own")
        if self.protocol and self.protocol not in PROTOCOLS:
            raise ConfigError(f"--protocol {self.protocol}: there are {', '.join(PROTOCOLS)}")
        if self.protocol in paper.NAMES and not self.root:
            raise ConfigError(f"--protocol {self.protocol} needs --data FOLDER, where the data set is unpacked")

    @property
    def long_tailed(self) -> bool:
        return self.protocol.endswith("-lt")


@lru_cache(maxsize=4)
def draw(questions: Questions, seed: int) -> Task:
    """The task of one seed; the same in every process. Raises ConfigError or SourceError."""
    name, shots, imbalance = questions.protocol, questions.shots, questions.imbalance
    if not name:
        return _own(questions, seed)
    if name == garments.FEW_SHOT:
        return garments.few_shot(shots, seed)
    if name == garments.LONG_TAIL:
        return garments.long_tail(imbalance, seed)
    if name == garments.OUT_OF_DISTRIBUTION:
        return garments.out_of_distribution(shots, seed)
    return paper.load(name, questions.root, shots=shots, imbalance=imbalance, seed=seed)


def own_images(questions: Questions) -> tuple[str, ...]:
    """What one's own images are, wherever they lie: the digests of source, test and validation. () for a protocol."""
    urls = (questions.source, questions.test, questions.validation)
    return tuple(_scan(url).digest if url else "" for url in urls) if questions.source else ()


def _own(questions: Questions, seed: int) -> Task:
    source, test = _scan(questions.source), _scan(questions.test)
    classes = source.classes
    _share_nothing(source, test)
    train, validation = _samples(source, classes), ()
    if questions.validation:
        held = _scan(questions.validation)
        _share_nothing(source, held)
        _share_nothing(held, test)
        validation = _samples(held, classes)
    elif seed >= TUNING_SEED:
        train, validation = _apart(train, seed)
    return Task(
        name=source.url.rstrip("/").rsplit("/", 1)[-1],
        seed=seed,
        classes=classes,
        train=train,
        validation=validation,
        test=_samples(test, classes),
        rules=(f"{len(source.images)} images of {source.url}, measured on {len(test.images)} of {test.url}",),
    )


@lru_cache(maxsize=4)
def _scan(url: str) -> Source:
    return read_source(url)


def _share_nothing(one: Source, other: Source) -> None:
    known = {image.sha256: image.where for image in one.images}
    shared = [image for image in other.images if image.sha256 in known]
    if shared:
        first, more = shared[0], f", and so are {len(shared) - 1} more" if len(shared) > 1 else ""
        raise SourceError(
            f"{other.url}/{first.where} is the same image as {one.url}/{known[first.sha256]}{more}; --source, --test "
            "and --validation must have no image in common: take it out of one of them"
        )


def _samples(source: Source, classes: tuple[str, ...]) -> tuple[Sample, ...]:
    unknown = [name for name, images in zip(source.classes, source.by_class, strict=True) if images]
    unknown = [name for name in unknown if name not in classes]
    if unknown:
        raise SourceError(f"{source.url} has the class {unknown[0]!r}, which there is nothing to train on for")
    labels = [classes.index(name) if name in classes else -1 for name in source.classes]
    reader = open_source(source.url)
    if isinstance(reader, ImageFolder) and not source.url.startswith(HUB):
        return tuple(Sample(f"{source.url}/{image.where}", labels[image.label]) for image in source.images)
    return tuple(
        Sample(image.where, labels[image.label], pixels=np.asarray(decode(reader.read(image.where), ACCEPTED)))
        for image in source.images
    )


def _apart(samples: tuple[Sample, ...], seed: int) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """(to train on, to choose on): of a class with two images or more, a fifth and at least one is kept apart."""
    rng = np.random.default_rng([seed, 3])
    labels = np.array([sample.label for sample in samples])
    held: set[int] = set()
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        if len(rows) > 1:
            held |= set(rows[: max(1, len(rows) // _HELD_SHARE)].tolist())
    if not held:
        raise SourceError("no class has two images, so settings cannot be chosen: give --validation, or --p and --lr")
    return (
        tuple(sample for row, sample in enumerate(samples) if row not in held),
        tuple(sample for row, sample in enumerate(samples) if row in held),
    )
