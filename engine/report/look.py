"""Look at a sample: features, what the judge sees, how images fit their words. The only part that needs models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np

from diffii.dataset.snapshot import Snapshot
from diffii.images import fit
from engine.licences import of_garments
from engine.prompts import plain_prompt
from engine.report.measure import Measured
from engine.report.sample import Sample, real_images, synthetic_images
from engine.run import Run

_BATCH = 16
"""Images of one call of the extractor; part of what the last bits of features follow from."""

Looks = Callable[[np.ndarray], np.ndarray]
"""uint8 images (N, S, S, 3) -> something of each (N, ...)."""
Fits = Callable[[np.ndarray, Sequence[str]], np.ndarray]
"""The same of images and a text each."""


def look(run: Run, sample: Sample, embedder: str, key: str, clip: str, device: str | None) -> Measured:
    """What the models say of a sample; `key` asked for the embedder.

    Raises ModelError when one cannot be loaded, SourceError for a lost image.
    """
    from diffii.embedding import Embedder

    model = Embedder.load(embedder, _BATCH, device, key)
    names, fits = _judge(run), _clip(clip, device)
    snapshot = Snapshot(run.storage, run.history)
    edge = snapshot.image(0).width
    made = (np.asarray(image) for image in synthetic_images(snapshot, sample, sample.synthetic.tolist()))
    real = (fit(image, edge, run.config.source.fit) for image in real_images(run.source, sample.real))
    words = [plain_prompt(run.config, name) for name in run.source.classes]
    suffixes = sample.rows["suffix"].to_pylist()
    asked = [
        f"{words[label]} {suffixes[row]}".strip() for label, row in zip(sample.labels, sample.synthetic, strict=True)
    ]
    seen_real = _look(real, [words[label] for label in sample.real_labels], model.embed, names, fits)
    seen = _look(made, asked, model.embed, names, fits)
    return Measured(
        real=seen_real[0],
        real_labels=sample.real_labels,
        synthetic=seen[0],
        labels=sample.labels,
        judged_real=seen_real[1],
        judged=seen[1],
        clip_real=seen_real[2],
        clip=seen[2],
    )


def _look(
    images: Iterator[np.ndarray], texts: list[str], embed: Looks, names: Looks | None, fits: Fits | None
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Features, the judge's labels and CLIPScores, a few images in memory at a time."""
    found: tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]] = ([], [], [])
    done = 0
    while some := list(islice(images, 4 * _BATCH)):
        batch = np.stack(some)
        found[0].append(embed(batch))
        if names is not None:
            found[1].append(names(batch))
        if fits is not None:
            found[2].append(fits(batch, texts[done : done + len(batch)]))
        done += len(batch)
    features, labels, scores = (np.concatenate(parts) if parts else None for parts in found)
    assert features is not None  # a sample holds an image of each kind
    return features, labels, scores


def _clip(name: str, device: str | None) -> Fits | None:
    if not name:
        return None
    from diffii.clip_score import ClipScore

    return ClipScore.load(name, device).score


def _judge(run: Run) -> Looks | None:
    """The judge of the embedded data set knows its own classes in the embedded model's images, and nothing else."""
    from diffii.garments.catalog import CLASSES
    from diffii.garments.judge import judge, load_judge

    if not of_garments(run):
        return None
    classes, network = run.source.classes, load_judge()
    label_of = np.array([classes.index(name) if name in classes else -1 for name in CLASSES])
    return lambda images: label_of[judge(network, images).fine.argmax(axis=1)]
