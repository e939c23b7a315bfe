"""What a complete run leaves for people: the contact sheet and the data set card with its counts."""

from __future__ import annotations

from diffii.dataset import layout
from diffii.dataset.snapshot import Snapshot
from engine.card_of_run import write_card
from engine.contact_sheet import contact_sheet
from engine.run import Run


def publish_missing(run: Run) -> None:
    """Publish what a run that died after its last commit did not come to."""
    if layout.CONTACT_SHEET not in run.storage.names():
        publish(run)


def publish(run: Run) -> None:
    """Write both; they are pictures and words, so a later run may write them again."""
    snapshot = Snapshot(run.storage, run.history)
    real = len(run.source.images)
    title = f"{len(snapshot)} synthetic images from {real} real ones"
    run.storage.put(layout.CONTACT_SHEET, contact_sheet(run.source, snapshot, title))
    write_card(run)
