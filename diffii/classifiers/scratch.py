"""`scratch`: a small residual network that starts from nothing, for small images and one CPU core.

    B batch   S edge of an image   K classes

Schedule of the paper (method.md section 1) where it makes sense at this size: SGD 0.9, weight decay 5e-4, cosine with
10 % warm-up, label smoothing 0.1. A training is a number of steps, not of epochs, so that few images are trained on as
long as many.
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

STEPS, BATCH = 500, 64
WIDTHS = (16, 32, 64)
SMALL, LARGE = 32, 64
"""Edges that images are brought to: those of up to 48 pixels, and all others."""
SHIFT = 4
_PREDICT = 256


class Scratch:
    """The classifier of that name; `steps` is for tests."""

    name = "scratch"
    learning_rates = (0.1, 0.3, 0.9)

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
        decayed = [weight for weight in network.parameters() if weight.ndim > 1]
        others = [weight for weight in network.parameters() if weight.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
        optimiser = torch.optim.SGD(groups, job.lr, momentum=0.9, nesterov=True)
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
    """A strided stem and one basic block per width, 80 000 parameters: images (B, 3, S, S) -> logits (B, K)."""

    def __init__(self, classes: int, widths: tuple[int, int, int] = WIDTHS) -> None:
        super().__init__()
        # Striding first takes a quarter of the time.
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        blocks = [_Block(before, width, 1 if before == width else 2) for before, width in _steps(widths)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        narrow = stride == 1 and inputs == outputs
        self.skip = (
            nn.Identity()
            if narrow
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.path(x) + self.skip(x))


def _steps(widths: tuple[int, ...]) -> list[tuple[int, int]]:
    return list(zip((widths[0], *widths), widths, strict=False))


def augment(images: Tensor, rng: np.random.Generator) -> Tensor:
    """uint8 (B, S, S, 3), each mirrored or not and shifted by up to 4 pixels over its own mirrored border."""
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
