"""How learning goes: losses per class and over time, and whether it may stop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffii.concepts.settings import LearnSettings


class Progress:
    """Counts and losses of one run of learning; everything in it is in a checkpoint."""

    def __init__(self, classes: int) -> None:
        self.step = 0
        self.stopped = False
        self.best = math.inf
        self.stale = 0
        self.curve: list[dict[str, float]] = []
        self.sums = torch.zeros(2, 2, classes, dtype=torch.float64)
        """(first, second half of the run) x (sum of losses, rows) x class."""
        self.window = torch.zeros(2, dtype=torch.float64)
        """Sum of losses and rows since the last check."""

    def add(self, labels: Sequence[int], losses: Tensor, late: bool) -> None:
        """Count the rows of one step."""
        index = torch.tensor(labels)
        half = self.sums[int(late)]
        half[0].index_add_(0, index, losses.double())
        half[1].index_add_(0, index, torch.ones(len(labels), dtype=torch.float64))
        self.window += torch.tensor([float(losses.double().sum()), float(len(labels))], dtype=torch.float64)

    def check(self, held_out: float, settings: LearnSettings) -> None:
        """Write down one look at the held-out draws; too many without a gain end the run."""
        self.curve.append({"step": self.step, "loss": float(self.window[0] / self.window[1]), "held_out": held_out})
        self.window.zero_()
        if held_out < self.best * (1 - settings.min_gain):
            self.best, self.stale = held_out, 0
        else:
            self.stale += 1
        self.stopped = 0 < settings.patience <= self.stale

    def per_class(self, classes: Sequence[str]) -> dict[str, dict[str, float | None]]:
        """Rows and mean loss of each class in the first and the second half of the run."""
        found: dict[str, dict[str, float | None]] = {}
        for index, name in enumerate(classes):
            (first, early), (second, late) = self.sums[:, :, index].tolist()
            halves = {"first_half": first / early if early else None, "second_half": second / late if late else None}
            found[name] = {"rows": early + late, **halves}
        return found

    def to_dict(self) -> dict[str, Any]:
        """The part of the state that is plain numbers."""
        best = None if math.isinf(self.best) else self.best
        return {
            "step": self.step, "stopped": self.stopped, "best": best, "stale": self.stale, "curve": self.curve,
        }  # fmt: skip

    def restore(self, state: dict[str, Any], sums: Tensor, window: Tensor) -> None:
        self.step, self.stopped, self.stale = int(state["step"]), bool(state["stopped"]), int(state["stale"])
        self.best = math.inf if state["best"] is None else float(state["best"])
        self.curve = list(state["curve"])
        self.sums.copy_(sums)
        self.window.copy_(window)
