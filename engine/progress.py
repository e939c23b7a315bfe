"""What the engine tells while it works. Who draws it is somebody else's business."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called from the driver's main thread."""

    def stage(self, name: str, total: int, done: int) -> None:
        """A stage of `total` images begins, `done` of them made by an earlier run."""
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

    def stage(self, name: str, total: int, done: int) -> None: ...

    def advance(self, images: int, lost: int = 0) -> None: ...

    def committed(self, rows: int, shard: str | None) -> None: ...

    def note(self, text: str) -> None: ...
