"""What a scan has to say of single files: a few lines for the person who waits, and all of it in a file."""

from __future__ import annotations

import json

from diffii.dataset import layout
from engine.progress import Progress
from engine.run import Run

_LINES = 20
"""Files named one by one; a source of a million may have ten thousand broken ones."""


def tell_source(run: Run, progress: Progress) -> None:
    """Name the files of the source that are not used, and those whose use is not as one may expect."""
    lines = [f"skipped {skip.where}: {skip.reason}" for skip in run.source.skipped]
    lines += [f"{note.where}: {note.reason}" for note in run.source.notes]
    for line in lines[:_LINES]:
        progress.note(line)
    if len(lines) > _LINES:
        progress.note(f"and {len(lines) - _LINES} more files: {run.storage.url}/{layout.SKIPPED} names all")


def keep_source_notes(run: Run) -> None:
    """Write the whole list beside the data set, one JSON object a line; of the scan that was made last."""
    rows = [{"where": skip.where, "reason": skip.reason, "used": False} for skip in run.source.skipped]
    rows += [{"where": note.where, "reason": note.reason, "used": True} for note in run.source.notes]
    text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    if text or run.storage.read_or_none(layout.SKIPPED):
        run.storage.put(layout.SKIPPED, text.encode())
