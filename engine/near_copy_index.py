"""The index of near-copies of one run: built from what is stored, so that a run that goes on decides as it would have.

Real images bring the signatures that the inversion stage stored, accepted rows those that lie beside their shards, and
the log the thresholds that were measured before the first row was decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction

import pyarrow as pa

from diffii.dataset import layout
from diffii.errors import OutputError
from diffii.signatures import DIMENSIONS, Signatures
from engine.copy_thresholds import Calibration, calibrate
from engine.near_copies import NearCopies
from engine.run import Run
from engine.source import SourceImage

_READERS = 32
"""Real images' signatures are 72 bytes each: latency, not bandwidth, decides how long reading them takes."""


def signed_images(run: Run, images: Sequence[SourceImage]) -> tuple[list[SourceImage], Signatures]:
    """Real images, of the source or held out, with their stored signatures; those that were set aside have none.

    Raises OutputError for an image that is neither signed nor set aside.
    """

    def read(image: SourceImage) -> bytes | None:
        name = layout.signature(run.plan.signature_key(image))
        data = run.storage.read_or_none(name)
        if data is None and run.storage.read_or_none(layout.set_aside(name)) is None:
            raise OutputError(
                f"{run.storage.url}/{name} is missing, by which near-copies of {image.where} are recognised; "
                "the same command again makes it anew"
            )
        return data

    with ThreadPoolExecutor(_READERS) as pool:
        found = [(image, data) for image, data in zip(images, pool.map(read, images), strict=True) if data is not None]
    signatures = Signatures.from_columns(
        [image.label for image, _ in found],
        [data[:-DIMENSIONS] for _, data in found],
        [data[-DIMENSIONS:] for _, data in found],
    )
    return [image for image, _ in found], signatures


def real_signatures(run: Run) -> Signatures:
    """Of the images that the run expands. Raises OutputError as `signed_images` does."""
    return signed_images(run, run.source.images)[1]


def calibrate_run(run: Run) -> Calibration:
    """Thresholds from the run's real images and its `dedup` settings; measured once, then read from the log.

    Raises OutputError for an image that has not been signed.
    """
    settings = run.config.dedup
    # As exact fractions of what was written: 0.3 in binary is not 3/10, and a threshold may hang on it.
    shares = (Fraction(repr(settings.alone)), Fraction(repr(settings.with_hash)))
    return calibrate(real_signatures(run), len(run.source.classes), *shares)


def calibrate_season(run: Run, known: Calibration) -> Calibration:
    """What was measured before, with the classes that have come since. Raises OutputError as `calibrate_run` does."""
    measured = calibrate_run(run)
    old = len(known.thresholds)
    nearest = {**{label: median for label, median in measured.nearest.items() if label >= old}, **known.nearest}
    return replace(known, thresholds=known.thresholds + measured.thresholds[old:], nearest=nearest)


def build_index(run: Run, calibration: Calibration) -> NearCopies:
    """The index as of the run's log. Raises OutputError for a real image that has not been signed."""
    index = NearCopies(calibration.thresholds, run.config.dedup.hash_radius, real_signatures(run))
    for table in run.sidecars(["label", "phash", "embedding"]):
        index.add(table_signatures(table))
    return index


def table_signatures(table: pa.Table) -> Signatures:
    """The signatures of a table's rows, from its columns label, phash and embedding."""
    return Signatures.from_columns(*(table[name].to_pylist() for name in ("label", "phash", "embedding")))
