"""Where a data set's real images lie, of a data set that was opened by its URL alone."""

from __future__ import annotations

from diffii.dataset import layout
from diffii.errors import OutputError
from engine.run import Run


def source_url(run: Run, given: str) -> str:
    """Where the real images are: as told, as the run or its log knows, or beside the data as in a demo.

    Raises OutputError when nothing says it.
    """
    if known := given or run.source.url:
        return known
    if layout.DEMO_SOURCE in run.storage.names():
        return run.storage.path(layout.DEMO_SOURCE)
    raise OutputError(f"{run.storage.url} does not say where its real images are; give them: --source URL")
