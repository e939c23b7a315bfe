"""The held-out set of a run: what of it must be signed, and the report on what of it leaked."""

from __future__ import annotations

from dataclasses import replace

from diffii.sources import AS_USUAL, Splits
from engine.config import Config
from engine.copy_thresholds import Calibration
from engine.inversions import SignTask
from engine.leaks import Compared, LeakReport, find_leaks
from engine.near_copy_index import signed_images, table_signatures
from engine.run import Run
from engine.scan import LookAt, Reading, read_source
from engine.source import Source


def has_holdout(config: Config) -> bool:
    return bool(config.dedup.holdout or config.source.holdout_split)


def read_holdout(run: Run, elsewhere: LookAt | None = None) -> Source | None:
    """The held-out images, scanned as a source is; None where none are configured. Raises SourceError.

    They are `dedup.holdout`, or the split of the source that is kept apart.
    """
    source, reading = run.config.source, Reading.of(run.config.source)
    if run.config.dedup.holdout:
        return read_source(run.config.dedup.holdout, replace(reading, splits=AS_USUAL), elsewhere=elsewhere)
    if source.holdout_split:
        held = replace(reading, splits=Splits(wanted=source.holdout_split))
        return read_source(source.url, held, elsewhere=elsewhere)
    return None


def sign_tasks(run: Run, heldout: Source) -> list[SignTask]:
    """What the inversion stage must sign for the report; nothing when near-copies are not looked for."""
    keyed = [(image, run.plan.signature_key(image)) for image in heldout.images]
    return [SignTask(heldout.url, image.where, image.sha256, key) for image, key in keyed if key]


def leak_report(run: Run, heldout: Source) -> LeakReport:
    """What of the held-out images the real images and the rows committed so far show.

    Raises OutputError for an image that has not been signed.
    """
    entry = run.history.calibration
    if entry is None:
        return find_leaks(run.source, heldout, None)
    real, real_rows = signed_images(run, run.source.images)
    held, held_rows = signed_images(run, heldout.images)
    compared = Compared(
        real_files=[image.where for image in real],
        real=real_rows,
        heldout_files=[image.where for image in held],
        heldout=held_rows,
        threshold=Calibration.from_record(entry.record).across,
        hash_radius=run.config.dedup.hash_radius,
    )
    tables = run.sidecars(["sample_id", "label", "phash", "embedding"])
    synthetic = ((table["sample_id"].to_pylist(), table_signatures(table)) for table in tables)
    return find_leaks(run.source, heldout, compared, synthetic)
