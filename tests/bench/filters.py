"""Would a filter make a better set of more rows? `python -m tests.bench.filters STUDY --seed 1000 [--seed 1001 ...]`

STUDY was explored with `diffii evaluate STUDY --protocol garments-fewshot --arms diff-ii --classifier scratch
--first-seed 1000 --tuning-seeds 0 --factor 10 ...`, so that each class has twice the rows that are wanted. Of these

    first        the first half, as they come: what a run without a filter has
    all          both halves: what the same work of the model gives without a filter
    scratch      the half that three networks, trained on the real images, name most surely as what they should be
    likeness     the half whose signature (64 small integers, stored beside each row) is nearest to the mean of the
                 real images' of its class
    judge        those that the judge calls what they should be, first ones first: no filter that may be used, the judge
                 has seen 50 000 photos; what the best filter could bring

are taken within each class, and `scratch` is trained on them beside the real images: p 0.5, rate 0.03, three networks,
validation photos. A line of JSON for each draw, then paired differences to `first`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from diffii.classifiers import Job, classifier
from diffii.classifiers.job import targets
from diffii.classifiers.lite0 import features
from diffii.classifiers.pixels import pixels_of
from diffii.classifiers.scratch import Scratch, _normalise
from diffii.dataset.labelled import Labelled, labelled
from diffii.dataset.snapshot import open_snapshot
from diffii.dataset.storage import Storage
from diffii.garments.judge import judge, load_judge
from diffii.hashing import seed64
from diffii.protocols.task import Task
from diffii.signatures import quantise
from engine.evaluate.sets import SETS
from engine.evaluate.statistics import interval
from engine.evaluate.tasks import Questions, draw
from engine.evaluate.training import _labelled

P, RATE, NETWORKS = 0.5, 0.03, 3


def measure(study: str, seed: int, shots: int) -> dict[str, Any]:
    """Of one draw, for each choice of rows: how many, percent that the judge agrees with, and accuracy."""
    task = draw(Questions(protocol="garments-fewshot", shots=shots), seed)
    folder = f"{study}/{SETS}/garments-fewshot-{shots}-shot/seed-{seed:04d}"
    (name,) = [name for name in Storage(folder).names() if name.startswith("diff-ii-")]
    snapshot = open_snapshot(f"{folder}/{name}")
    made, real = labelled(snapshot), _labelled(task.train)
    pixels, ordinals = pixels_of(made, 32), snapshot.column("ordinal").to_numpy()
    verdict = judge(load_judge(), pixels).fine.argmax(1) == made.labels
    scores = {
        "first": -ordinals.astype(np.float64),
        "scratch": _sureness(task, real, pixels, made.labels),
        "likeness": _likeness(real, pixels, made.labels),
        "judge": verdict * 1e6 - ordinals,
    }
    half = len(made.labels) // (2 * len(task.classes))
    chosen = {"all": np.arange(len(made.labels)), **{k: _best(v, made.labels, half) for k, v in scores.items()}}
    found: dict[str, Any] = {"seed": seed}
    for way, rows in chosen.items():
        print(f"bench: draw {seed}, {way}", file=sys.stderr, flush=True)
        accuracy = _accuracy(task, real, _taken(made, rows))
        right = 100 * float(verdict[rows].mean())
        found[way] = {"rows": len(rows), "judge": round(right, 1), "accuracy": round(accuracy, 2)}
    return found


def _best(scores: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """The `count` rows of each class with the highest scores, of equal ones the first."""
    of_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return np.sort(np.concatenate([rows[np.argsort(-scores[rows], kind="stable")[:count]] for rows in of_class]))


def _taken(images: Labelled, rows: np.ndarray) -> Labelled:
    opened: Callable[[int], Any] = lambda number: images.image(int(rows[number]))  # noqa: E731
    return Labelled(images.labels[rows], images.classes, opened, images.other_labels[rows], images.weights[rows])


def _sureness(task: Task, real: Labelled, pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean probability of the intended class, by networks that saw the real images alone."""
    total = np.zeros(len(labels))
    images = torch.from_numpy(pixels_of(real, 32))
    for number in range(NETWORKS):
        seed = seed64(task.seed, "filter", number)
        job = Job(classes=len(task.classes), real=real, held=real, lr=RATE, seed=seed)
        wanted = torch.from_numpy(np.concatenate(targets(job, smoothing=0.1)))
        network = Scratch()._train(job, images, wanted, len(real.labels))
        with torch.inference_mode():
            total += network(_normalise(torch.from_numpy(pixels))).softmax(1).numpy()[np.arange(len(labels)), labels]
    return total / NETWORKS


def _likeness(real: Labelled, pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cosine between each row's signature and the mean of its class's real ones."""
    known, rows = (_unit(quantise(found)) for found in features([pixels_of(real, 32), pixels]))
    means = np.stack([_unit(known[real.labels == label].mean(0)) for label in range(int(labels.max()) + 1)])
    return (rows * means[labels]).sum(1)


def _unit(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _accuracy(task: Task, real: Labelled, made: Labelled) -> float:
    """Percent of the validation photos, the mean over the networks."""
    held, found = _labelled(task.validation), list[float]()
    for number in range(NETWORKS):
        seed = seed64(task.seed, "training", number) if number else task.seed
        job = Job(classes=len(task.classes), real=real, synthetic=made, held=held, p=P, lr=RATE, seed=seed)
        found.append(100 * float((classifier("scratch")(job) == held.labels).mean()))
    return float(np.mean(found))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.filters", description=__doc__)
    parser.add_argument("study")
    parser.add_argument("--seed", type=int, action="append", required=True)
    parser.add_argument("--shots", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    draws: list[dict[str, Any]] = []
    for seed in options.seed:
        draws.append(measure(options.study, seed, options.shots))
        print(json.dumps(draws[-1]), flush=True)
    for way in [way for way in draws[0] if way not in ("seed", "first")]:
        gains = [found[way]["accuracy"] - found["first"]["accuracy"] for found in draws]
        print(f"{way:<9} over first: {interval(gains).difference} ({len(gains)} draws)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
