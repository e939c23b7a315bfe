"""The other workers that learn the same concepts: what each computes is given to all, or nobody else is there.

Work is cut into parts that do not depend on the number of workers, and what comes of them is added up in their order:
so that is what is learned, to the bit, by any number of workers on the same kind of device.
"""

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

    def share(self, parts: int) -> range:
        """Which of the parts are this worker's."""
        return range(self.rank, parts, self.count)

    def gather(self, mine: Sequence[Tensor], parts: int, size: int, device: torch.device) -> Tensor:
        """What came of every part, float32 (parts, size), on each worker; `mine` are those of `share(parts)`."""
        if self.count == 1:
            return torch.stack(list(mine))
        rounds = -(-parts // self.count)
        sent = torch.zeros(rounds, size, device=device)
        for row, part in zip(sent, mine, strict=False):
            row.copy_(part)
        received = [torch.empty_like(sent) for _ in range(self.count)]
        torch.distributed.all_gather(received, sent)
        # Part k is the k // count-th of worker k % count.
        return torch.stack(received, dim=1).flatten(0, 1)[:parts]

    def agree(self, number: int, device: torch.device) -> int:
        """The first worker's number."""
        if self.count == 1:
            return number
        told = torch.tensor([number], device=device)
        torch.distributed.broadcast(told, 0)
        return int(told)


ALONE = Workers()
