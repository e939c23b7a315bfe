"""The other workers that learn the same concepts: gradients averaged by torch.distributed, or nobody else there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Workers:
    """This worker's place; with more than one, torch.distributed's default group must be up."""

    rank: int = 0
    count: int = 1

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their mean over the workers, in one exchange: they are few and small."""
        if self.count > 1:
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            torch.distributed.all_reduce(flat)
            flat /= self.count
            for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace float64 CPU tensors by their sum over the workers."""
        if self.count > 1:
            on_gpu = torch.distributed.get_backend() == "nccl"
            for tensor in tensors:
                moved = tensor.cuda() if on_gpu else tensor
                torch.distributed.all_reduce(moved)
                tensor.copy_(moved)


ALONE = Workers()
