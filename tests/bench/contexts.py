"""How often diffusion captioning finds the context of a garment photo, and what that costs. One JSON object.

    python -m tests.bench.contexts [--shots 50] [--seed 0] [--sweep]

The photos are the embedded pool's, put before one of five backgrounds each: the background is the right answer.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffii.backbone import Backbone
from diffii.contexts.candidates import GENERAL
from diffii.contexts.diffusion import DiffusionSettings, choose_contexts, rows_per_image
from diffii.garments.catalog import COARSE_OF, CONTEXTS, caption
from diffii.garments.data import export_pool
from diffii.hashing import seed64, sha256
from diffii.weights import EMBEDDED

SWEEP = [
    *((level,) for level in (0.99, 0.95, 0.85, 0.7, 0.55, 0.35, 0.15)),
    *((0.95, 0.95), (0.95, 0.85), (0.95, 0.7), (0.95, 0.85, 0.7), (0.85, 0.7, 0.55)),
]
"""Noise levels of the rounds to compare; each also without dropping candidates."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=int, default=50, help="photos per class, ten classes (default 50)")
    parser.add_argument("--seed", type=int, default=0, help="which photos and backgrounds (default 0)")
    parser.add_argument("--micro-batch", type=int, default=DiffusionSettings().micro_batch)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sweep", action="store_true", help="compare noise levels too")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    backbone = Backbone.load(EMBEDDED, device="cpu")
    with tempfile.TemporaryDirectory(prefix="diffii-bench-") as scratch:
        photos = Photos(Path(scratch), options.shots, options.seed)
    five, chosen = tuple(CONTEXTS.values()), DiffusionSettings(micro_batch=options.micro_batch)
    report: dict[str, Any] = {
        "command": " ".join(["python -m tests.bench.contexts", *(sys.argv[1:] if arguments is None else arguments)]),
        "images": len(photos.images),
        "threads": options.threads,
        "torch": torch.__version__,
        "defaults": measure(backbone, photos, five, chosen),
        "defaults, without dropping": measure(backbone, photos, five, changed(chosen, keep=1.0)),
    }
    if options.sweep:
        # Words that the model never saw beside its own: how many rows a long list costs, and what it does to accuracy.
        report["with the general list"] = measure(backbone, photos, (*five, *GENERAL_ONLY), chosen)
        report["sweep"] = [
            measure(backbone, photos, five, changed(chosen, levels=levels, keep=keep))
            for levels in SWEEP
            for keep in ((0.5, 1.0) if len(levels) > 1 else (1.0,))
        ]
    print(json.dumps(report, indent=2))
    return 0


GENERAL_ONLY = tuple(context for context in GENERAL if context not in CONTEXTS.values())


class Photos:
    """Composed pool photos in memory, with the context that each was put in."""

    def __init__(self, folder: Path, shots: int, seed: int) -> None:
        export_pool(folder, shots, seed)
        files = sorted(folder.rglob("*.png"))
        self.images = np.stack([np.asarray(Image.open(file)) for file in files])
        self.prompts = [caption(COARSE_OF[file.parent.name], None) for file in files]
        self.seeds = [seed64(sha256(file.read_bytes())) for file in files]
        self.right = [CONTEXTS[file.stem.split("-", 1)[1]] for file in files]


def changed(settings: DiffusionSettings, **values: Any) -> DiffusionSettings:
    return DiffusionSettings(**{**asdict(settings), **values})


def measure(
    backbone: Backbone, photos: Photos, candidates: tuple[str, ...], settings: DiffusionSettings
) -> dict[str, Any]:
    """Accuracy over all photos and by context, margins of right and wrong choices, rows and seconds."""
    backbone.prompts([f"{prompt} {context}" for prompt in set(photos.prompts) for context in candidates])
    started = time.perf_counter()
    found = choose_contexts(backbone, photos.images, photos.prompts, photos.seeds, candidates, settings)
    seconds = time.perf_counter() - started
    hits = np.array([choice.context == right for choice, right in zip(found, photos.right, strict=True)])
    margins = np.array([choice.margin for choice in found])
    return {
        "levels": settings.levels,
        "keep": settings.keep,
        "micro_batch": settings.micro_batch,
        "candidates": len(candidates),
        "accuracy": round(float(hits.mean()), 4),
        "by_context": {
            context: round(float(hits[[right == context for right in photos.right]].mean()), 3)
            for context in CONTEXTS.values()
        },
        "median_margin": {
            "right": round(float(np.median(margins[hits])), 3) if hits.any() else None,
            "wrong": round(float(np.median(margins[~hits])), 3) if not hits.all() else None,
        },
        "rows_per_image": rows_per_image(len(candidates), settings),
        "seconds": round(seconds, 2),
        "seconds_per_50_images": round(50 * seconds / len(photos.images), 2),
    }


if __name__ == "__main__":
    sys.exit(main())
