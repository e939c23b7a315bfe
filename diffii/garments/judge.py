"""The judge: a small network that names the garment and the context of a 32x32 image. It only measures.

It was trained with fine labels on the 50 000 pretraining photos, novel classes included, so nothing that is
learned or chosen may use it; benchmarks and the model's own quality figures do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from diffii.garments.catalog import CLASSES, COARSE, COARSE_OF, CONTEXTS

WEIGHTS = Path(__file__).parent / "weights" / "judge.safetensors"


class JudgeNetwork(nn.Module):
    """Three convolution stages (32, 64, 128 channels) and two linear heads."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_stage(3, 32), *_stage(32, 64), *_stage(64, 128), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.garment = nn.Linear(128, len(CLASSES))
        self.context = nn.Linear(128, len(CONTEXTS))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, 32, 32) in [-1, 1] -> logits over fine classes (B, 10) and contexts (B, 5)."""
        features = self.body(images)
        return self.garment(features), self.context(features)


@dataclass(frozen=True)
class Verdict:
    """Per image: probabilities over fine classes (N, 10), coarse classes (N, 5) and contexts (N, 5)."""

    fine: np.ndarray
    coarse: np.ndarray
    context: np.ndarray


def load_judge(weights: Path = WEIGHTS) -> JudgeNetwork:
    network = JudgeNetwork()
    network.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def judge(network: JudgeNetwork, images: np.ndarray) -> Verdict:
    """Judge uint8 images (N, 32, 32, 3). A coarse class's probability is the sum over its fine classes."""
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    logits = [network(part) for part in x.split(256)]
    fine = torch.cat([garment for garment, _ in logits]).softmax(1).numpy()
    context = torch.cat([context for _, context in logits]).softmax(1).numpy()
    coarse = np.zeros((len(fine), len(COARSE)), fine.dtype)
    for column, name in enumerate(CLASSES):
        coarse[:, COARSE.index(COARSE_OF[name])] += fine[:, column]
    return Verdict(fine, coarse, context)


def _stage(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
