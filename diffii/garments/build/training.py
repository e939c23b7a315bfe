"""What the three small trainings share: a learning-rate line to zero, an averaged copy, a progress line."""

from __future__ import annotations

import time

import torch


def linear_decay(optimiser: torch.optim.Optimizer, steps: int, warmup: int = 100) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up over `warmup` steps, then linearly to zero at `steps`."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / warmup) * max(0.0, 1.0 - step / steps)
    )


class Average:
    """Exponential moving average of parameters; its memory grows with the run, up to `limit`."""

    def __init__(self, module: torch.nn.Module, limit: float = 0.999) -> None:
        self._limit = limit
        self._shadow = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: torch.nn.Module, step: int) -> None:
        keep = min(self._limit, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self._shadow[name].lerp_(value.detach(), 1.0 - keep)
            else:
                self._shadow[name].copy_(value)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self._shadow


class Progress:
    """One line every half minute: step, smoothed loss, images per second."""

    def __init__(self, name: str, steps: int, batch: int) -> None:
        self._name, self._steps, self._batch = name, steps, batch
        self._started = self._said = time.monotonic()
        self._loss: float | None = None

    def update(self, step: int, loss: float) -> None:
        self._loss = loss if self._loss is None else 0.98 * self._loss + 0.02 * loss
        now = time.monotonic()
        if now - self._said > 30 or step + 1 == self._steps:
            self._said = now
            rate = (step + 1) * self._batch / (now - self._started)
            print(f"{self._name}: {step + 1}/{self._steps} loss {self._loss:.4f} {rate:.0f} images/s", flush=True)
