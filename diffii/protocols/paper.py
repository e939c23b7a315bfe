"""The paper's protocols by name: few shots, long tails, and birds where they do not belong.

Every one draws its training images by seed from the published training part, keeps some of the rest of that part for
choosing settings, and is measured on the published test part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from diffii.errors import ConfigError, SourceError
from diffii.protocols import archives
from diffii.protocols.archive import Archive, Counts, Folder, Layout, read_archive
from diffii.protocols.published import published
from diffii.protocols.splits import long_tail_counts, partition, shuffled_classes
from diffii.protocols.task import Sample, Task

VALIDATION = 10
"""Images per class, at most, that settings are chosen on."""
SHOTS, IMBALANCES = (5, 10), (10, 20, 50, 100)
"""What the paper reports. Other shots are drawn as well; other imbalance factors too."""
OFFICIAL = "official"


@dataclass(frozen=True)
class _Data:
    layout: Layout
    read: Callable[[Folder], Archive]
    metaclass: str


_CUB = _Data(archives.CUB, archives.read_cub, "bird")
_FEW_SHOT = {
    "cub-fewshot": _CUB,
    "aircraft-fewshot": _Data(archives.AIRCRAFT, archives.read_aircraft, "aircraft"),
    "car-fewshot": _Data(archives.CARS, archives.read_cars, "car"),
    "pet-fewshot": _Data(archives.PETS, archives.read_pets, "animal"),
}
_FLOWERS = _Data(archives.FLOWERS, archives.read_flowers, "flower")
_WATERBIRDS = _Data(archives.WATERBIRDS, archives.read_waterbirds, "bird")
_THRESHOLDS = {"cub-lt": (20, 5), "flower-lt": (30, 10)}
"""Training images above which a class counts as many-shot, and below which as few-shot: Diff-Mix's."""
NAMES = (*_FEW_SHOT, *_THRESHOLDS, "cub-waterbird")


def load(
    name: str,
    root: str,
    *,
    shots: int = 5,
    imbalance: int = 100,
    seed: int = 0,
    counts: Counts | str | None = OFFICIAL,
) -> Task:
    """One draw of a protocol from the data set unpacked in `root`, a path or fsspec URL.

    `shots` is asked by few-shot protocols and `cub-waterbird`, `imbalance` by long tails. `cub-waterbird` wants a root
    that holds both CUB_200_2011 and waterbird_complete95_forest2water2. `counts` None takes a reduced copy for what
    it is; by default every published image must be there. Raises ConfigError for an unknown name or too many shots,
    SourceError naming the file and the mend when the data set is not as published.
    """
    if name not in NAMES:
        raise ConfigError(f"there is no protocol {name!r}; the paper's are {', '.join(NAMES)}")
    if name in _FEW_SHOT:
        return _few_shot(name, _FEW_SHOT[name], _read(_FEW_SHOT[name], root, counts), shots, seed)
    if name == "cub-lt":
        archive = _read(_CUB, root, counts)
        rule = "The published training and test parts."
        return _long_tail(
            name, _CUB, archive.classes, archive.parts["train"], archive.parts["test"], imbalance, seed, rule
        )
    if name == "flower-lt":
        archive = _read(_FLOWERS, root, counts)
        train, test = _halves(archive, seed)
        rule = "Half of each class's images, drawn by the seed, to train on and the other half to measure on."
        return _long_tail(name, _FLOWERS, archive.classes, train, test, imbalance, seed, rule)
    return _waterbird(name, root, shots, seed, counts)


def _read(data: _Data, root: str, counts: Counts | str | None) -> Archive:
    wanted = data.layout.counts if isinstance(counts, str) else counts
    return read_archive(root, data.layout, data.read, wanted)


def _few_shot(name: str, data: _Data, archive: Archive, shots: int, seed: int) -> Task:
    train = archive.parts["train"]
    rows = shuffled_classes([sample.label for sample in train], len(archive.classes), seed)
    fewest = min(range(len(rows)), key=lambda label: len(rows[label]))
    if not 1 <= shots <= len(rows[fewest]):
        raise ConfigError(
            f"{name}: shots must be 1 to {len(rows[fewest])}, the training images of {archive.classes[fewest]!r}"
        )
    # Behind the largest published number of shots, so that five and ten shots are chosen on the same images.
    start = max(shots, *SHOTS)
    return Task(
        name=name,
        seed=seed,
        shots=shots,
        metaclass=data.metaclass,
        classes=archive.classes,
        train=_take(train, [order[:shots] for order in rows]),
        validation=_take(train, [order[start : start + VALIDATION] for order in rows]),
        test=archive.parts["test"],
        published=published(name, shots),
        rules=(
            f"{shots} images of each class of the published training part, drawn by seed {seed}.",
            f"Chosen on up to {VALIDATION} others of it per class, measured on the published test part.",
        ),
    )


def _long_tail(
    name: str,
    data: _Data,
    classes: tuple[str, ...],
    train: Sequence[Sample],
    test: Sequence[Sample],
    imbalance: int,
    seed: int,
    parts: str,
) -> Task:
    rows = shuffled_classes([sample.label for sample in train], len(classes), seed)
    sizes = [len(order) for order in rows]
    try:
        counts = long_tail_counts(sizes, imbalance)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error
    mean = sum(sizes) / len(sizes)
    above, below = _THRESHOLDS[name]
    return Task(
        name=name,
        seed=seed,
        imbalance=imbalance,
        metaclass=data.metaclass,
        classes=classes,
        train=_take(train, [order[:count] for order, count in zip(rows, counts, strict=True)]),
        validation=_take(train, [order[count : count + VALIDATION] for order, count in zip(rows, counts, strict=True)]),
        test=tuple(test),
        partitions=partition(counts, above, below),
        published=published(name, imbalance),
        rules=(
            parts,
            f"n = max(int({mean:.2f} * (1/{imbalance})^(rank/{len(sizes) - 2})), 1) images of a class, "
            "ranked by size, the largest first; drawn by the seed.",
            f"Many shots: above {above} training images; few: below {below}.",
            f"Chosen on up to {VALIDATION} unused training images per class: the largest classes may have none.",
        ),
    )


def _halves(archive: Archive, seed: int) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """(to train on, to measure on): half of each class's images, out of all the published parts.

    As published, Oxford Flowers gives every class ten images to train on, and no long tail fits into ten.
    """
    every = sorted((sample for samples in archive.parts.values() for sample in samples), key=lambda one: one.where)
    rows = shuffled_classes([sample.label for sample in every], len(archive.classes), seed)
    train = _take(every, [order[: len(order) // 2] for order in rows])
    return train, _take(every, [order[len(order) // 2 :] for order in rows])


def _waterbird(name: str, root: str, shots: int, seed: int, counts: Counts | str | None) -> Task:
    # Counts of one's own are CUB's here; the other archive is counted when all is official.
    birds = _read(_CUB, root, counts)
    placed = _read(_WATERBIRDS, root, OFFICIAL if isinstance(counts, str) else None)
    label_of = {class_name: label for label, class_name in enumerate(birds.classes)}
    test = []
    for sample in placed.parts["test"]:
        species = placed.classes[sample.label]
        if species not in label_of:
            raise SourceError(
                f"{sample.where}: {species!r} is none of the classes of {archives.CUB.folder}/classes.txt; "
                f"unpack {archives.WATERBIRDS.unpack} again"
            )
        test.append(replace(sample, label=label_of[species]))
    learned = {_file(sample) for sample in birds.parts["train"]}
    if seen := [sample for sample in test if _file(sample) in learned]:
        raise SourceError(
            f"{seen[0].where} shows a bird of CUB's training part; unpack {archives.WATERBIRDS.unpack} again"
        )
    task = _few_shot(name, _CUB, birds, shots, seed)
    return replace(
        task,
        test=tuple(test),
        groups=archives.WATERBIRD_GROUPS,
        rules=(
            task.rules[0],
            f"Chosen on up to {VALIDATION} others of it per class: no bird out of its place is seen before the end.",
            "Measured on the test part of Waterbirds: 200 species, in four groups by kind of bird and place.",
        ),
    )


def _file(sample: Sample) -> str:
    return "/".join(sample.where.rsplit("/", 2)[-2:])


def _take(samples: Sequence[Sample], rows: Sequence[np.ndarray]) -> tuple[Sample, ...]:
    return tuple(samples[int(row)] for order in rows for row in order)
