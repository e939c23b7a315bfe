"""Where a data set's real images lie, of a data set that was opened by its URL alone."""

from __future__ import annotations

from diffii.dataset import layout
from diffii.errors import OutputError
from engine.run import Run


def source_url(run: Run, given: str) -> str:
    """Where the real images are: as told, as the run knows, as the log says, or beside the data as in a demo.

    Raises OutputError when nothing says it.
    """
    if given:
        return given
    if run.source.url != run.storage.url:
        return run.source.url
    opening = run.history.opening
    if opening is not None and opening.origin:
        return opening.origin
    if layout.DEMO_SOURCE in run.storage.names():
        return run.storage.path(layout.DEMO_SOURCE)
    raise OutputError(f"{run.storage.url} does not say where its real images are; give them: --source URL")
