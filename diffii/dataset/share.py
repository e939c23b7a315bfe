"""Whose turn each batch of an epoch is, and how far the epoch has come: the same for every number of ranks and workers.

An epoch is one sequence of rows (`diffii.dataset.order`), cut into batches from wherever it has come to. Batch i from
there on is rank i mod R's, and there worker (i div R) mod W's, which is the turn in which torch's DataLoader asks its
workers. So after n batches of every rank the first n * R * B rows have been seen, whoever read them, and that number is
all that a state has to hold.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Literal, TypedDict

from diffii.dataset.order import Epoch, Order
from diffii.dataset.snapshot import Snapshot
from diffii.hashing import digest

Last = Literal["short", "drop", "pad"]


class Options(TypedDict, total=False):
    """How an epoch is ordered and shared out."""

    seed: int
    """The order follows from it and the epoch's number, and from `lanes`, `window` and the batch size."""
    shuffle: bool
    """False: the order of the data set."""
    window: int
    """Rows that are shuffled among themselves, 1000; a worker holds as many encoded images in memory."""
    lanes: int | None
    """Places of the data set that are read side by side: one per worker of all ranks reads a bucket best, and is what a
    stream does; a sampler does not know its workers and takes one per rank. Give it for the same order with any."""
    last: Last
    """The last batches, where the rows do not come out even. `short`: every row once, so that a rank may have a batch
    less than another; `drop` and `pad`: as many whole batches for every rank, by leaving rows out or giving them again.
    """
    rank: int | None
    """Of this process among `world_size`: by default as torch.distributed or torchrun says."""
    world_size: int | None


class Share:
    """What a sampler and a stream have in common: one rank's batches. Call `set_epoch` before every epoch."""

    def __init__(
        self,
        snapshot: Snapshot,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        window: int = 1000,
        lanes: int | None = None,
        last: Last = "short",
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        import torch

        here, ranks = _world()
        self.batch_size, self.last = batch_size, last
        self.rank: int = here if rank is None else rank
        self.world_size: int = ranks if world_size is None else world_size
        if min(batch_size, window, 1 if lanes is None else lanes) < 1:
            raise ValueError(f"batch_size, window and lanes are at least 1, got {batch_size}, {window} and {lanes}")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank {self.rank} is not one of {self.world_size}")
        if last not in ("short", "drop", "pad"):
            raise ValueError(f"last is 'short', 'drop' or 'pad', got {last!r}")
        self._sizes, self._length = snapshot.sizes(), len(snapshot)
        data = digest(snapshot.shards_digest, self._sizes.tolist())
        self._of = {"rows": len(snapshot), "version": snapshot.version, "data": data}
        lanes = lanes or (0 if shuffle else 1)
        self._order = {"seed": seed, "shuffle": shuffle, "lanes": lanes, "stripe": batch_size, "window": window}
        # In shared memory, so that worker processes that persist see the next epoch, and this one how many they are.
        self._epoch, self._workers = torch.zeros(2, dtype=torch.int64).share_memory_()
        self._loaded: dict[str, Any] | None = None
        """The state that the next epoch goes on from."""
        self._begun: dict[str, Any] | None = None
        """The state in which the epoch under way was begun, where this process gives it out."""
        self._given = 0

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch: another has another order. The one that a loaded state stands in goes on from there."""
        self._epoch.fill_(epoch)
        self._begun = None
        if self._loaded is not None and self._loaded["epoch"] != epoch:
            self._loaded = None

    def __len__(self) -> int:
        """Batches of this rank in a whole epoch."""
        return len(range(self.rank, self._batches(0), self.world_size))

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """How far the epoch has come, once the loop of every rank has taken `batches` since it began or was resumed.

        The loop counts them: workers read ahead, so that what was given out says little about what has arrived. Without
        `batches` it is what this process has given out: exact without workers, and of one worker what torchdata's
        StatefulDataLoader asks. Raises ValueError where nothing was.
        """
        state = dict(self._begun or self._loaded or self._fresh())
        if batches is None and self._begun is None:
            raise ValueError("say how many batches the loop has taken: this process has given out none")
        count, worker = (self._given, _worker()) if batches is None else (batches, None)
        if count < 0:
            raise ValueError(f"a loop cannot have taken {count} batches")
        if worker is not None:
            return state | {"worker": [*worker, count]}
        taken = state["taken"] + count * self.batch_size * self.world_size
        return state | {"taken": min(taken, self._length)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in the middle of an epoch, in its order, with any number of ranks and workers and any batch size.

        Raises ValueError when it is a state of other rows, and when workers have begun: they may persist, and would not
        hear of it.
        """
        if any(state[name] != self._of[name] for name in ("rows", "data")):
            raise ValueError(
                f"this is the state of an epoch over {state['rows']} rows of version {state['version']}, and here are "
                f"{self._of['rows']} of version {self._of['version']}: end it with the rows that it was begun with"
            )
        worker = _worker()
        if "worker" in state and (worker is None or list(worker) != state["worker"][:2]):
            raise ValueError("this is the state of one worker among others: load it with as many workers")
        if worker is None and int(self._workers):
            raise ValueError("workers have begun already: load a state before, into a new data set and DataLoader")
        self._loaded, self._begun = dict(state), None

    def _begin(self) -> tuple[Epoch, Iterator[tuple[int, int]]]:
        """The epoch, and the places [start, stop) in it of the batches that are this rank's and this worker's."""
        worker, workers = _worker() or (0, 1)
        if _worker() is not None:
            self._workers.fill_(workers)
        state, self._loaded = self._loaded or self._fresh(), None
        state["lanes"] = state["lanes"] or self.world_size * workers
        *_, self._given = state.pop("worker", [0])
        self._begun = state
        epoch = Epoch(self._sizes, Order(**{name: state[name] for name in self._order}), state["epoch"])
        turns = range(self.rank + self.world_size * worker, self._batches(state["taken"]), self.world_size * workers)
        return epoch, self._places(state["taken"], turns[self._given :])

    def _places(self, first: int, turns: range) -> Iterator[tuple[int, int]]:
        for batch in turns:
            start = first + batch * self.batch_size
            stop = start + self.batch_size
            self._given += 1
            yield start, stop if self.last == "pad" else min(stop, self._length)

    def _batches(self, first: int) -> int:
        """Batches of all ranks from a place on."""
        together = 1 if self.last == "short" else self.world_size
        size, left = self.batch_size * together, self._length - first
        return (left // size if self.last == "drop" else -(-left // size)) * together

    def _fresh(self) -> dict[str, Any]:
        lanes = self._order["lanes"] or self.world_size * int(self._workers)
        return {"epoch": int(self._epoch), "taken": 0} | self._order | {"lanes": lanes} | self._of


def _world() -> tuple[int, int]:
    """(rank, ranks) of this process, as torch.distributed says, or whoever started it."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _worker() -> tuple[int, int] | None:
    """(number, workers) in a worker process of a DataLoader."""
    from torch.utils.data import get_worker_info

    info = get_worker_info()
    return None if info is None else (info.id, info.num_workers)
