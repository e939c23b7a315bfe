"""Few shots, a long tail, and a shift of context, on garments: the three data-scarce tasks, offline.

Training images come from the pool, settings are chosen on the validation photos, and 2000 held-out photos are measured
on in each of five contexts. The embedded model saw none of these photos, and none at all of the novel classes.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from diffii.errors import ConfigError
from diffii.garments.catalog import CLASSES, CONTEXTS, NOVEL
from diffii.garments.data import PhotoSet, Scene, draw_scenes, heldout, validation
from diffii.garments.scene import compose
from diffii.protocols.splits import partition
from diffii.protocols.task import Sample, Task

FEW_SHOT, LONG_TAIL, OUT_OF_DISTRIBUTION = "garments-fewshot", "garments-lt", "garments-ood"
HEAD = 100
"""Images of the largest class of a long tail."""
MANY, FEW = 50, 20
"""A class of at least `MANY` images is of the head (many shots), one of fewer than `FEW` of the tail (few shots)."""

_SEEN = (
    "The embedded model saw none of these photos. It was trained on others of the same source under coarse words, and "
    f"on no photo at all of the novel classes ({', '.join(NOVEL)})."
)
_MEASURED = "Measured on 2000 held-out photos in each of five contexts."


def few_shot(shots: int, seed: int) -> Task:
    """`shots` photos a class, contexts dealt evenly: the same that `export_pool` writes. Raises ConfigError."""
    rng = np.random.default_rng([seed, shots])
    scenes = _draw([shots] * len(CLASSES), rng)
    rules = (f"{shots} photos of each class, in contexts dealt evenly.", _MEASURED, _SEEN)
    return _task(FEW_SHOT, seed, scenes, _scenes_of("validation"), _scenes_of("heldout"), rules, shots=shots)


def long_tail(imbalance: int, seed: int) -> Task:
    """100 images of the head, 100 / imbalance of the tail, falling exponentially; which class is where is drawn.

    Raises ConfigError for an imbalance below 1.
    """
    if imbalance < 1:
        raise ConfigError(f"imbalance {imbalance}: the head's share of the tail's, so at least 1")
    rng = np.random.default_rng([seed, imbalance, 1])
    order = rng.permutation(len(CLASSES))
    counts = np.empty(len(CLASSES), np.int64)
    counts[order] = [tail_count(rank, imbalance) for rank in range(len(CLASSES))]
    scenes = _draw(counts.tolist(), rng)
    partitions = partition(counts.tolist(), above=MANY - 1, below=FEW)
    rules = (
        f"n(rank) = max(int({HEAD} * {imbalance} ** (-rank / {len(CLASSES) - 1})), 1); ranks are drawn.",
        f"Many: {MANY} images or more; few: fewer than {FEW}.",
        _MEASURED,
        _SEEN,
    )
    held = _scenes_of("validation"), _scenes_of("heldout")
    return _task(LONG_TAIL, seed, scenes, *held, rules, imbalance=imbalance, partitions=partitions)


def tail_count(rank: int, imbalance: int) -> int:
    """Images of the class of this rank, 0 to 9."""
    # A ninth root to the ninth power may fall just short of a whole number.
    return max(int(HEAD * imbalance ** (-rank / (len(CLASSES) - 1)) + 1e-9), 1)


def out_of_distribution(shots: int, seed: int) -> Task:
    """Each class is photographed in one context alone, each context with two classes, and measured in the others.

    Test images of a class in its own context are left out. Settings are chosen on each class's own context: what the
    shift will be is not known when one trains. Raises ConfigError.
    """
    rng = np.random.default_rng([seed, shots, 2])
    names = list(CONTEXTS)
    own = [names[k] for k in rng.permutation(np.resize(np.arange(len(names)), len(CLASSES)))]
    scenes = _draw([shots] * len(CLASSES), rng, own)
    seen = tuple(s for s in _scenes_of("validation") if names[s.group] == own[s.label])
    shifted = tuple(s for s in _scenes_of("heldout") if names[s.group] != own[s.label])
    rules = (
        f"{shots} photos of each class in one context: "
        + ", ".join(f"{name} {CONTEXTS[context]}" for name, context in zip(CLASSES, own, strict=True))
        + ".",
        "Measured on 2000 held-out photos in the other contexts; groups are contexts.",
        _SEEN,
    )
    return _task(OUT_OF_DISTRIBUTION, seed, scenes, seen, shifted, rules, shots=shots)


def _draw(counts: list[int], rng: np.random.Generator, contexts: list[str] | None = None) -> list[Scene]:
    try:
        return draw_scenes(counts, rng, contexts or ())
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _task(
    name: str,
    seed: int,
    scenes: list[Scene],
    chosen_on: tuple[Sample, ...],
    test: tuple[Sample, ...],
    rules: tuple[str, ...],
    *,
    shots: int | None = None,
    imbalance: int | None = None,
    partitions: dict[str, tuple[int, ...]] | None = None,
) -> Task:
    novel = tuple(CLASSES.index(name) for name in NOVEL)
    base = tuple(label for label in range(len(CLASSES)) if label not in novel)
    train = tuple(Sample(f"{scene.photo:04d}-{scene.context}", scene.label, pixels=scene.pixels) for scene in scenes)
    return Task(
        name=name,
        seed=seed,
        shots=shots,
        imbalance=imbalance,
        classes=CLASSES,
        train=train,
        validation=chosen_on,
        test=test,
        groups=tuple(CONTEXTS),
        partitions={**(partitions or {}), "novel": novel, "base": base},
        rules=rules,
    )


@cache
def _scenes_of(name: str) -> tuple[Sample, ...]:
    """Every photo of a set in every context, the same ones for every draw."""
    photos: PhotoSet = heldout() if name == "heldout" else validation()
    samples: list[Sample] = []
    for number, (pixels, label) in enumerate(zip(photos.pixels, photos.labels, strict=True)):
        for group, context in enumerate(CONTEXTS):
            image = compose(pixels, context, number)
            samples.append(Sample(f"{name}-{number:04d}-{context}", int(label), group, image))
    return tuple(samples)
