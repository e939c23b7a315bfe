"""The leak report: which training images show what a held-out image shows, so that a test score would be flattered.

    N  rows to check   H  held-out images

A real training image with the same bytes is an exact copy; near-copies, real and synthetic, are recognised as
`engine.near_copies` does it, but across all classes, since a copy under another label is a leak too. It rejects
nothing: what to do about a leak is the user's decision. Everything here is pure; who reads what is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa

from diffii.dataset.tables import write_table
from diffii.signatures import Signatures
from engine.near_copies import Threshold, leaks
from engine.source import Source

REAL, SYNTHETIC = "real", "synthetic"

SCHEMA = pa.schema(
    {
        "kind": pa.string(),
        "id": pa.string(),
        "class_name": pa.string(),
        "heldout_file": pa.string(),
        "exact": pa.bool_(),
        "distance": pa.int64(),
        "hash_bits": pa.int64(),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """One training image, and the first held-out image that it shows."""

    kind: str
    """`real` or `synthetic`."""
    id: str
    """File of a real image below the source's URL; sample id of a synthetic one."""
    class_name: str
    heldout_file: str
    """Below the URL of the held-out set."""
    exact: bool
    """The two files hold the same bytes."""
    distance: int
    """Squared distance of the quantised embeddings; 0 for an exact copy."""
    hash_bits: int
    """Bits in which the perceptual hashes differ; 0 for an exact copy."""


@dataclass(frozen=True, kw_only=True)
class LeakReport:
    """What was found: exact copies first, then real images, then synthetic ones in the order they were given."""

    heldout: int
    """Held-out images."""
    real: int
    synthetic: int
    """Training images of each kind that were checked."""
    near_copies: bool
    """False when `dedup.embedder` is off: then exact copies alone were looked for."""
    leaks: tuple[Leak, ...] = field(default=())

    def count(self, kind: str, exact: bool = False) -> int:
        return sum(leak.kind == kind and leak.exact == exact for leak in self.leaks)

    @property
    def heldout_shown(self) -> int:
        """Held-out images that some leak names."""
        return len({leak.heldout_file for leak in self.leaks})

    def summary(self) -> str:
        """One line for people."""
        found = [f"{self.count(REAL, exact=True)} of {self.real} real training images are the same file"]
        if self.near_copies:
            found.append(f"{self.count(REAL)} more are near-copies")
            found.append(f"{self.count(SYNTHETIC)} of {self.synthetic} synthetic images are near-copies")
        else:
            found.append("near-copies were not looked for, because dedup.embedder is off")
        return (
            f"leaks: {self.heldout_shown} of {self.heldout} held-out images are shown in training: {', '.join(found)}"
        )

    def to_parquet(self) -> bytes:
        """One row per leak; the same report gives the same bytes."""
        return write_table(pa.Table.from_pylist([asdict(leak) for leak in self.leaks], schema=SCHEMA))


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What near-copies are looked for with: images that are signed, and what counts as near."""

    real_files: Sequence[str]
    real: Signatures
    heldout_files: Sequence[str]
    heldout: Signatures
    threshold: Threshold
    """For images of any class: `Calibration.across`."""
    hash_radius: int

    def __post_init__(self) -> None:
        for files, rows in ((self.real_files, self.real), (self.heldout_files, self.heldout)):
            if len(files) != len(rows):
                raise ValueError(f"there are {len(rows)} signatures for {len(files)} images")


def find_leaks(
    source: Source,
    heldout: Source,
    compared: Compared | None,
    synthetic: Iterable[tuple[Sequence[str], Signatures]] = (),
) -> LeakReport:
    """Look for held-out images among the real training images and in synthetic rows, given as (sample ids, signatures).

    Without `compared` exact copies alone are found. Labels of the held-out set are not looked at.
    """
    found = list(exact_copies(source, heldout))
    rows = 0
    if compared is not None:
        exact = {leak.id for leak in found}
        near = _near(REAL, compared.real_files, compared.real, compared, source.classes)
        found += [leak for leak in near if leak.id not in exact]
        for ids, signatures in synthetic:
            rows += len(ids)
            found += _near(SYNTHETIC, ids, signatures, compared, source.classes)
    return LeakReport(
        heldout=len(heldout.images),
        real=len(source.images),
        synthetic=rows,
        near_copies=compared is not None,
        leaks=tuple(found),
    )


def exact_copies(source: Source, heldout: Source) -> Iterator[Leak]:
    """Real training images whose bytes are those of a held-out image; no model is needed."""
    files = {image.sha256: image.where for image in heldout.images}
    for image in source.images:
        if image.sha256 in files:
            name, file = source.classes[image.label], files[image.sha256]
            yield Leak(
                kind=REAL, id=image.where, class_name=name, heldout_file=file, exact=True, distance=0, hash_bits=0
            )


def _near(
    kind: str, ids: Sequence[str], rows: Signatures, compared: Compared, classes: Sequence[str]
) -> Iterator[Leak]:
    matches = leaks(rows, compared.heldout, compared.threshold, compared.hash_radius)
    for row in np.flatnonzero(matches >= 0).tolist():
        match = int(matches[row])
        step = rows.embeddings[row].astype(np.int64) - compared.heldout.embeddings[match]
        yield Leak(
            kind=kind,
            id=ids[row],
            class_name=classes[int(rows.labels[row])],
            heldout_file=compared.heldout_files[match],
            exact=False,
            distance=int(step @ step),
            hash_bits=(int(rows.hashes[row]) ^ int(compared.heldout.hashes[match])).bit_count(),
        )
