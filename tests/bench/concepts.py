"""Do learned concepts show the class that was meant? Measured on the embedded model by its judge.

    python -m tests.bench.concepts --out concepts.json [--draws 10] [--settings steps=300 batch=32]

A draw is five random photos per class from the pool, each in a random context, and a learning seed of its own. For each
draw the same fresh Gaussian noise is denoised twice (CFG 3, 25 steps, context suffixes while t >= 0.7 T): under the
coarse words that the model was trained with, and under the concepts. The figure is the share of images in which the
judge sees the intended FINE class; differences are paired by draw, with a 95 % t-interval. The file is written after
every draw, and a run that finds it goes on behind the last.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student

from diffii.backbone import Backbone
from diffii.circle import gaussian
from diffii.concepts.lesson import Lesson
from diffii.concepts.loop import learn
from diffii.concepts.record import Concepts
from diffii.concepts.settings import GARMENTS, LearnSettings
from diffii.denoise import denoise
from diffii.garments.catalog import CLASSES, COARSE_OF, CONTEXTS, NOVEL, TEMPLATE
from diffii.garments.data import pool
from diffii.garments.judge import judge, load_judge
from diffii.garments.scene import compose
from diffii.hashing import seed64

STEPS, GUIDANCE, SPLIT, BATCH = 25, 3.0, 0.3, 50


@dataclass(frozen=True)
class Shots:
    """A few-shot set: uint8 images (N, 32, 32, 3), labels into CLASSES, and each image's context words."""

    images: np.ndarray
    labels: tuple[int, ...]
    contexts: tuple[str, ...]


def draw_shots(draw: int, shots: int) -> Shots:
    """`shots` random photos per class, contexts dealt evenly within a class."""
    photos, names = pool(), list(CONTEXTS)
    rng = np.random.default_rng([draw, 77, shots])
    images: list[np.ndarray] = []
    labels: list[int] = []
    contexts: list[str] = []
    for label in range(len(CLASSES)):
        rows = np.flatnonzero(photos.labels == label)
        deal = rng.permutation(np.resize(rng.permutation(len(names)), shots))
        for row, context in zip(rng.permutation(rows)[:shots], deal, strict=True):
            images.append(compose(photos.pixels[row], names[context], int(rng.integers(2**31))))
            labels.append(label)
            contexts.append(CONTEXTS[names[context]])
    return Shots(np.stack(images), tuple(labels), tuple(contexts))


def lesson(shots: Shots, with_contexts: bool) -> Lesson:
    return Lesson(
        classes=CLASSES,
        words=tuple(COARSE_OF[name] for name in CLASSES),
        labels=shots.labels,
        template=TEMPLATE,
        contexts=shots.contexts if with_contexts else (),
    )


def look(backbone: Backbone, draw: int, names: list[str], per_class: int) -> dict[str, float]:
    """Percent of images with the intended class (all, novel, base, each) and context, when classes have these names."""
    grid, suffixes = backbone.grid(STEPS, "matched"), list(CONTEXTS.values())
    rows = [(label, k % len(suffixes), k) for label in range(len(CLASSES)) for k in range(per_class)]
    made: list[np.ndarray] = []
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        noise = np.stack([gaussian(seed64("bench", draw, label, k), backbone.latent_shape) for label, _, k in part])
        plain = [TEMPLATE.format(name=names[label]) for label, _, _ in part]
        suffixed = [f"{text} {suffixes[context]}" for text, (_, context, _) in zip(plain, part, strict=True)]
        latents = denoise(backbone, torch.from_numpy(noise), plain, suffixed, grid, SPLIT, GUIDANCE)
        made.append((np.clip(backbone.decode(latents), 0, 1) * 255 + 0.5).astype(np.uint8))
    verdict = judge(load_judge(), np.concatenate(made))
    label, context = (np.array([row[column] for row in rows]) for column in (0, 1))
    right = verdict.fine.argmax(1) == label
    novel = np.isin(label, [CLASSES.index(name) for name in NOVEL])
    found = {"all": right.mean(), "novel": right[novel].mean(), "base": right[~novel].mean()}
    found |= {"context": (verdict.context.argmax(1) == context).mean()}
    found |= {name: right[label == index].mean() for index, name in enumerate(CLASSES)}
    return {name: round(100 * float(value), 2) for name, value in found.items()}


def interval(values: list[float]) -> dict[str, float]:
    """Mean and half-width of the 95 % t-interval."""
    count = len(values)
    half = float(student.ppf(0.975, count - 1)) * float(np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else 0.0
    return {"mean": round(float(np.mean(values)), 2), "half_width": round(half, 2)}


def summary(draws: list[dict[str, Any]]) -> dict[str, Any]:
    keys = list(draws[0]["coarse"])
    gain = {key: [row["concepts"][key] - row["coarse"][key] for row in draws] for key in keys}
    return {
        "draws": len(draws),
        "gain": {key: interval(values) for key, values in gain.items()},
        **{arm: {k: interval([row[arm][k] for row in draws]) for k in keys} for arm in ("coarse", "concepts")},
        "learning_cpu_seconds": interval([row["cpu_seconds"] for row in draws]),
    }


def measure(backbone: Backbone, draw: int, settings: LearnSettings, args: argparse.Namespace) -> dict[str, Any]:
    shots = draw_shots(draw, args.shots)
    told = lesson(shots, not args.no_contexts)
    began = time.process_time()
    concepts: Concepts = learn(backbone, told, shots.images, replace(settings, seed=draw))
    seconds = time.process_time() - began
    with_words = look(backbone, draw, [COARSE_OF[name] for name in CLASSES], args.per_class)
    backbone.use(concepts)
    with_concepts = look(backbone, draw, [concepts.name_of(name) for name in CLASSES], args.per_class)
    backbone.use(None)
    return {
        "draw": draw,
        "coarse": with_words,
        "concepts": with_concepts,
        "cpu_seconds": round(seconds, 1),
        "losses": concepts.about["losses"],
        "digest": concepts.digest,
    }


def parse(settings: list[str]) -> LearnSettings:
    kinds = {field.name: type(getattr(GARMENTS, field.name)) for field in fields(GARMENTS)}
    values: dict[str, Any] = {}
    for item in settings:
        name, _, text = item.partition("=")
        kind = kinds[name]
        values[name] = text == "true" if kind is bool else kind(text)
    return replace(GARMENTS, **values)


def main() -> None:
    parser = argparse.ArgumentParser(description="concepts against coarse words on the embedded model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--per-class", type=int, default=10, help="images per class, arm and draw")
    parser.add_argument("--no-contexts", action="store_true", help="learn without each image's own context words")
    parser.add_argument("--settings", nargs="*", default=[], metavar="KEY=VALUE", help="other than the preset's")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = parse(args.settings)
    about = {"shots": args.shots, "per_class": args.per_class, "contexts": not args.no_contexts}
    about["settings"] = settings.to_dict()
    found = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {"about": about, "draws": []}
    if found["about"] != about:
        raise SystemExit(f"{args.out} was measured with other settings")
    backbone = Backbone.load("garments", device="cpu")
    for draw in range(len(found["draws"]), args.draws):
        found["draws"].append(measure(backbone, draw, settings, args))
        found["summary"] = summary(found["draws"])
        args.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
        gain = {key: found["summary"]["gain"][key] for key in ("all", "novel", "base", "context")}
        print(f"after {draw + 1} draws: {json.dumps(gain)}", flush=True)


if __name__ == "__main__":
    main()
