"""Train the judge on the 50 000 pretraining photos, all ten classes, in random contexts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from diffii.garments.build.autoencoder import scenes
from diffii.garments.build.photos import Photos
from diffii.garments.build.training import Progress, linear_decay
from diffii.garments.catalog import CLASSES, CONTEXTS
from diffii.garments.judge import JudgeNetwork

STEPS = 5_000
BATCH = 64
LEARNING_RATE = 2e-3


def train(photos: Photos, heldout: Photos, out: Path, seed: int = 0, steps: int = STEPS) -> dict[str, float]:
    """Train, save as fp16 safetensors, and return accuracies (percent) on composed held-out photos."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 3])
    network = JudgeNetwork()
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=1e-2)
    schedule = linear_decay(optimiser, steps)
    progress = Progress("judge", steps, BATCH)
    for step in range(steps):
        rows, contexts = rng.integers(len(photos.labels), size=BATCH), rng.integers(len(CONTEXTS), size=BATCH)
        images = scenes(photos, rows, contexts, rng.integers(2**31, size=BATCH))
        if rng.random() < 0.5:
            images = images.flip(3)
        garment, context = network(images)
        loss = F.cross_entropy(garment, torch.from_numpy(photos.labels[rows]), label_smoothing=0.05)
        loss = loss + 0.5 * F.cross_entropy(context, torch.from_numpy(contexts))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        progress.update(step, float(loss.detach()))
    network.eval()
    save_file({name: _half(value) for name, value in network.state_dict().items()}, out)
    return _accuracy(network, heldout)


def _half(value: torch.Tensor) -> torch.Tensor:
    return value.half().contiguous() if value.is_floating_point() else value


def _accuracy(network: JudgeNetwork, photos: Photos) -> dict[str, float]:
    rng = np.random.default_rng(0)
    contexts = rng.integers(len(CONTEXTS), size=len(photos.labels))
    rows = np.arange(len(photos.labels))
    with torch.inference_mode():
        logits = [network(scenes(photos, part, contexts[part], part)) for part in np.array_split(rows, 40)]
    named = torch.cat([garment.argmax(1) for garment, _ in logits]).numpy() == photos.labels
    placed = torch.cat([context.argmax(1) for _, context in logits]).numpy() == contexts
    result = {"fine": 100 * float(named.mean()), "context": 100 * float(placed.mean())}
    for label, name in enumerate(CLASSES):
        result[name] = 100 * float(named[photos.labels == label].mean())
    return result
