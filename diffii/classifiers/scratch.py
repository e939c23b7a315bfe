"""`scratch`: a small residual network that starts from nothing, for small images and one CPU core.

    B batch   S edge of an image   K classes

AdamW, cosine with 10 % warm-up, label smoothing 0.1. A training is a number of steps, not of epochs, so that few images
are trained on as long as many.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from diffii.classifiers.blending import blend
from diffii.classifiers.job import Job, batches, targets, warm_cosine
from diffii.classifiers.pixels import pixels_of
from diffii.hashing import seed64

STEPS, BATCH, WEIGHT_DECAY = 250, 64, 0.05
WIDTHS = (16, 32, 64)
SMALL, LARGE = 32, 64
"""Edges that images are brought to: those of up to 48 pixels, and all others."""
SHIFT = 2
"""Pixels, at most, by which a training image is moved."""
_PREDICT = 256


class Scratch:
    """The classifier of that name; `steps` is for tests."""

    name = "scratch"
    learning_rates = (3e-3, 1e-2, 3e-2)

    def __init__(self, steps: int = STEPS) -> None:
        self._steps = steps

    def __call__(self, job: Job) -> np.ndarray:
        edge = SMALL if min(job.real.image(0).size) <= 48 else LARGE
        real, held = pixels_of(job.real, edge), pixels_of(job.held, edge)
        made = pixels_of(job.synthetic, edge) if job.synthetic is not None else real[:0]
        images = torch.from_numpy(np.concatenate([real, made]))
        wanted = torch.from_numpy(np.concatenate(targets(job, smoothing=0.1)))
        network = self._train(job, images, wanted, len(real))
        return _predict(network, torch.from_numpy(held))

    def _train(self, job: Job, images: Tensor, wanted: Tensor, real: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed64(job.seed, "weights") >> 1)
            network = ResidualNetwork(job.classes).to(memory_format=torch.channels_last)  # pyright: ignore
        rng = np.random.Generator(np.random.Philox(seed64(job.seed, "augmentation")))
        optimiser = torch.optim.AdamW(network.parameters(), job.lr, weight_decay=WEIGHT_DECAY)
        source = batches(job, BATCH)
        network.train()
        for step in range(self._steps):
            synthetic, index = next(source)
            rows = torch.from_numpy(np.where(synthetic, real + index, index))
            x, y = blend(job.blend, job.p, _normalise(augment(images[rows], rng)), wanted[rows], rng)
            for group in optimiser.param_groups:
                group["lr"] = job.lr * warm_cosine(step, self._steps)
            loss = functional.cross_entropy(network(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return network.eval()


class ResidualNetwork(nn.Module):
    """Convolutions at full resolution, pooled, and two residual blocks: images (B, 3, S, S) -> logits (B, K).

    A network that strides from its first convolution on is faster, and was fifteen points worse on five real garments a
    class (two draws, 46 and 31 %): what is small in an image of 32 pixels is gone after it.
    """

    def __init__(self, classes: int, widths: tuple[int, int, int] = WIDTHS) -> None:
        super().__init__()
        first, second, third = widths
        self.body = nn.Sequential(
            _pooled(3, first), _pooled(first, second), _Block(second), _pooled(second, third), _Block(third)
        )
        self.head = nn.Linear(third, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).mean((2, 3)))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.path = nn.Sequential(*_convolution(width, width), nn.ReLU(), *_convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.path(x))


def _pooled(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*_convolution(inputs, outputs), nn.ReLU(), nn.MaxPool2d(2))


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)


def augment(images: Tensor, rng: np.random.Generator) -> Tensor:
    """uint8 (B, S, S, 3), each mirrored or not and shifted by up to `SHIFT` pixels over its own mirrored border."""
    count, edge = images.shape[:2]
    reach = np.arange(edge)[None, :]
    rows = _reflected(reach + rng.integers(-SHIFT, SHIFT + 1, (count, 1)), edge)
    columns = _reflected(reach + rng.integers(-SHIFT, SHIFT + 1, (count, 1)), edge)
    mirrored = rng.random(count) < 0.5
    columns[mirrored] = columns[mirrored, ::-1]
    which = torch.arange(count)[:, None, None]
    return images[which, torch.from_numpy(rows)[:, :, None], torch.from_numpy(columns)[:, None, :]]


def _reflected(places: np.ndarray, edge: int) -> np.ndarray:
    return (edge - 1) - np.abs((edge - 1) - np.abs(places))


def _normalise(images: Tensor) -> Tensor:
    """uint8 (B, S, S, 3) -> float32 (B, 3, S, S) in about [-2, 2]; channels last in memory, which is faster."""
    return (images.float() / 127.5 - 1.0).mul_(2.0).permute(0, 3, 1, 2)


@torch.inference_mode()
def _predict(network: nn.Module, images: Tensor) -> np.ndarray:
    parts = [network(_normalise(part)).argmax(1) for part in images.split(_PREDICT)]
    return cast(np.ndarray, torch.cat(parts).numpy())
