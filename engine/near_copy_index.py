"""The index of near-copies of one run: built from what is stored, so that a run that goes on decides as it would have.

Real images bring the signatures that were stored beside their inversions, accepted rows those in their shards.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

from diffii.dataset import layout
from diffii.dataset.snapshot import Snapshot
from diffii.signatures import DIMENSIONS, Signatures
from engine.config import OFF
from engine.copy_thresholds import calibrate
from engine.near_copies import NearCopies
from engine.run import Run

_READERS = 16
"""Real images' signatures are 72 bytes each: latency, not bandwidth, decides how long reading them takes."""


def build_index(run: Run) -> NearCopies | None:
    """The index as of the run's log; None when `dedup.embedder` is off. Real images must have been inverted."""
    settings = run.config.dedup
    if settings.embedder == OFF:
        return None
    real = _real(run)
    # As exact fractions of what was written: 0.3 in binary is not 3/10, and a threshold may hang on it.
    shares = (Fraction(repr(settings.alone)), Fraction(repr(settings.with_hash)))
    calibration = calibrate(real, len(run.source.classes), *shares)
    index = NearCopies(calibration.thresholds, settings.hash_radius, real)
    for table in Snapshot(run.storage, run.entries).tables(["label", "phash", "embedding"]):
        index.add(Signatures.from_rows(table.to_pylist()))
    return index


def _real(run: Run) -> Signatures:
    keys = [run.plan.inversion_key(image) for image in run.source.images]
    with ThreadPoolExecutor(_READERS) as pool:
        stored = list(pool.map(lambda key: run.storage.read(layout.signature(key)), keys))
    labels = [image.label for image in run.source.images]
    return Signatures.from_columns(
        labels, [data[:-DIMENSIONS] for data in stored], [data[-DIMENSIONS:] for data in stored]
    )
