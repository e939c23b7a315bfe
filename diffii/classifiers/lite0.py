"""`lite0`: the frozen ImageNet EfficientNet-lite0 that near-copies are recognised by, under a trained linear head.

Its features are computed once per image and kept, so that a training takes a second. Each image's features are brought
to one length. Brought to the real images' own mean and deviation instead, numbers that hardly differ in a few real
images are blown up in all others: five shots were named 5 to 7 points worse, and any synthetic images cost 18.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch.nn import functional

from diffii.classifiers.blending import blend
from diffii.classifiers.job import Job, batches, targets, warm_cosine
from diffii.classifiers.pixels import pixels_of
from diffii.dataset.storage import Storage
from diffii.embedder_weights import LITE0, embedder_digest, lite0_weights
from diffii.embedding import Embedder
from diffii.errors import ConfigError
from diffii.hashing import digest, sha256

STEPS, BATCH = 500, 64
_KEY = "--classifier"
"""What errors name."""
_EMBED = 32
"""Images of a call of the frozen network."""


class Lite0:
    """The classifier of that name."""

    name = LITE0
    learning_rates = (1e-4, 3e-4, 1e-3)

    def __init__(self) -> None:
        """Raises ModelError when its packages are missing."""
        lite0_weights(_KEY)

    def __call__(self, job: Job) -> np.ndarray:
        """Raises ConfigError for CutMix, which pastes pixels where there are features alone."""
        if job.blend == "cutmix":
            raise ConfigError("cutmix blends pixels, and lite0 sees features alone; leave out one of the two")
        sets = [job.real, job.held] + ([job.synthetic] if job.synthetic is not None else [])
        found = features([pixels_of(images) for images in sets], job.cache)
        real, held, made = found[0], found[1], found[2] if job.synthetic is not None else found[0][:0]
        images = torch.from_numpy(_one_length(np.concatenate([real, made])))
        wanted = torch.from_numpy(np.concatenate(targets(job, smoothing=0.1)))
        head = _train(job, images, wanted, len(real))
        with torch.inference_mode():
            return cast(np.ndarray, head(torch.from_numpy(_one_length(held))).argmax(1).numpy())


def _one_length(features: np.ndarray) -> np.ndarray:
    """(N, D), each row scaled to the length sqrt(D)."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features * (np.float32(features.shape[1] ** 0.5) / np.maximum(lengths, np.float32(1e-6)))


def _train(job: Job, images: torch.Tensor, wanted: torch.Tensor, real: int) -> torch.nn.Linear:
    head = torch.nn.Linear(images.shape[1], job.classes)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimiser = torch.optim.SGD(head.parameters(), job.lr, momentum=0.9, weight_decay=5e-4)
    rng = np.random.default_rng([job.seed, 5])
    source = batches(job, BATCH)
    for step in range(STEPS):
        synthetic, index = next(source)
        rows = torch.from_numpy(np.where(synthetic, real + index, index))
        x, y = blend(job.blend, job.p, images[rows], wanted[rows], rng)
        for group in optimiser.param_groups:
            group["lr"] = job.lr * warm_cosine(step, STEPS)
        loss = functional.cross_entropy(head(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return head


def features(sets: list[np.ndarray], cache: Path | None = None) -> list[np.ndarray]:
    """float32 (N, 1280) of every set of uint8 images (N, S, S, 3); what `cache` holds is not computed again."""
    keys = [[f"{images.shape[1]}-{sha256(image.tobytes())}" for image in images] for images in sets]
    known = _cached(cache)
    missing: dict[str, np.ndarray] = {}
    for names, images in zip(keys, sets, strict=True):
        missing |= {name: image for name, image in zip(names, images, strict=True) if name not in known}
    if missing:
        embedder = Embedder.load(LITE0, _EMBED, key=_KEY)
        for edge in sorted({image.shape[0] for image in missing.values()}):
            names = [name for name, image in missing.items() if image.shape[0] == edge]
            # Half precision, cached or not: what is computed once and what is read again must be the same.
            found = embedder.embed(np.stack([missing[name] for name in names])).astype(np.float16)
            known |= dict(zip(names, found, strict=True))
            _keep(cache, names, found)
    return [np.stack([known[name] for name in names]).astype(np.float32) if names else _NONE for names in keys]


_NONE = np.empty((0, 1280), np.float32)


def _cached(cache: Path | None) -> dict[str, np.ndarray]:
    known: dict[str, np.ndarray] = {}
    for path in sorted(cache.glob(f"{_kind()}-*.npz")) if cache is not None and cache.is_dir() else []:
        with np.load(path, allow_pickle=False) as file:
            known |= dict(zip(file["names"].tolist(), file["features"], strict=True))
    return known


def _keep(cache: Path | None, names: list[str], found: np.ndarray) -> None:
    if cache is None:
        return
    buffer = io.BytesIO()
    np.savez(buffer, names=np.array(names), features=found)
    Storage(str(cache)).put_once(f"{_kind()}-{digest(names)[:32]}.npz", buffer.getvalue())


def _kind() -> str:
    return f"lite0-{embedder_digest(LITE0, _KEY)[:12]}"
