"""What the engine tells while it works. Who draws it is somebody else's business."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

STARTING_SECONDS = 30.0
"""A process of an actor takes up to this long to start and import its packages, wherever there is room for it."""


@dataclass(frozen=True, slots=True)
class Actors:
    """The actors of a stage: `wanted` at most, `here` started, `ready` with the model loaded, `busy` with a task.

    `alone` is for how many seconds there has been none.
    """

    wanted: int
    here: int = 0
    ready: int = 0
    busy: int = 0
    alone: float = 0.0

    @property
    def waiting(self) -> bool:
        """Nothing is wrong and nothing can be done: no machine has room for an actor yet."""
        return self.here == 0 and self.alone > STARTING_SECONDS

    def __str__(self) -> str:
        if self.waiting:
            return f"waiting for capacity for {_duration(self.alone)} (0 of {self.wanted} actors)"
        if not self.here:
            return "starting actors"
        if not self.ready:
            return f"loading the model in {self.here} of {self.wanted} actors"
        return f"{self.busy} of {self.wanted} actors busy"


class Progress(Protocol):
    """`actors` and `note` may be called from a thread, all else is from the driver's main thread."""

    def stage(self, name: str, total: int, done: int, unit: str = "images") -> None:
        """A stage of `total` images (or other units) begins, `done` of them made by an earlier run."""
        ...

    def actors(self, actors: Actors) -> None:
        """What the stage's actors do now; every few seconds."""
        ...

    def advance(self, images: int, lost: int = 0) -> None:
        """Images were made; `lost` of them will not be kept."""
        ...

    def committed(self, rows: int, shard: str | None) -> None:
        """Rows were committed, and the shard that holds them is visible to readers."""
        ...

    def note(self, text: str) -> None:
        """Something a user should know, in one line."""
        ...


class Silent:
    """Progress that nobody watches."""

    def stage(self, name: str, total: int, done: int, unit: str = "images") -> None: ...

    def actors(self, actors: Actors) -> None: ...

    def advance(self, images: int, lost: int = 0) -> None: ...

    def committed(self, rows: int, shard: str | None) -> None: ...

    def note(self, text: str) -> None: ...


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
