"""The leak report: exact copies by their bytes, near-copies across all classes, and a report that says both."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from diffii.dataset.tables import read_table
from diffii.embedding import LITE0, Embedder
from diffii.features import perceptual_hash
from diffii.garments.catalog import CLASSES
from diffii.garments.data import heldout as heldout_photos
from diffii.garments.data import pool
from diffii.garments.scene import compose
from diffii.hashing import sha256
from diffii.signatures import DIMENSIONS, Signatures
from engine.copy_thresholds import HASH_RADIUS, calibrate
from engine.leaks import REAL, SYNTHETIC, Compared, find_leaks
from engine.near_copies import Threshold
from engine.source import Source, SourceImage


def source(url: str, *names: str, classes: int = 2) -> Source:
    """Images whose bytes are their names without what follows a dash."""
    images = tuple(
        SourceImage(sha256(name.partition("-")[0].encode()), k % classes, f"{k % classes}/{name}")
        for k, name in enumerate(names)
    )
    return Source(url, tuple(f"class {k}" for k in range(classes)), images)


def on_a_line(labels: list[int], places: list[int], hashes: list[int] | None = None) -> Signatures:
    embeddings = np.zeros((len(places), DIMENSIONS), np.int8)
    embeddings[:, 0] = places
    return Signatures(np.array(labels), np.array(hashes or [0] * len(places), dtype=np.uint64), embeddings)


def test_the_same_bytes_are_reported_without_an_embedder() -> None:
    report = find_leaks(source("s", "a", "b", "c-1"), source("h", "x", "c-2", "y"), None)
    (leak,) = report.leaks
    assert (leak.kind, leak.id, leak.class_name, leak.heldout_file) == (REAL, "0/c-1", "class 0", "1/c-2")
    assert (leak.exact, leak.distance, leak.hash_bits) == (True, 0, 0)
    assert not report.near_copies
    assert report.summary() == (
        "leaks: 1 of 3 held-out images are shown in training: 1 of 3 real training images are the same file, "
        "near-copies were not looked for, because dedup.embedder is off"
    )


def test_near_copies_are_found_in_every_class_and_an_exact_copy_counts_once() -> None:
    train, held = source("s", "a", "b", "c"), source("h", "a", "x", "y")
    compared = Compared(
        real_files=[image.where for image in train.images],
        real=on_a_line([0, 1, 0], [0, 21, 60], [0, 0, 0]),
        heldout_files=[image.where for image in held.images],
        heldout=on_a_line([0, 1, 0], [0, 20, 40], [0, 7, 0]),
        threshold=Threshold(4, 25),
        hash_radius=2,
    )
    rows = [
        (["s0", "s1"], on_a_line([0, 1], [44, 45], [3, 3])),
        (["s2"], on_a_line([1], [46])),
        (["s3"], on_a_line([0], [24])),
    ]
    report = find_leaks(train, held, compared, rows)
    found = [
        (leak.kind, leak.id, leak.heldout_file, leak.exact, leak.distance, leak.hash_bits) for leak in report.leaks
    ]
    assert found == [
        (REAL, "0/a", "0/a", True, 0, 0),
        (REAL, "1/b", "1/x", False, 1, 3),
        (SYNTHETIC, "s0", "0/y", False, 16, 2),
        (SYNTHETIC, "s1", "0/y", False, 25, 2),  # of another class, at the threshold in distance and in bits
    ], "s2 is too far, and s3's hash differs in more than two bits"
    assert (report.real, report.synthetic, report.heldout, report.heldout_shown) == (3, 4, 3, 3)
    assert report.summary() == (
        "leaks: 3 of 3 held-out images are shown in training: 1 of 3 real training images are the same file, "
        "1 more are near-copies, 2 of 4 synthetic images are near-copies"
    )


def test_the_report_is_a_table() -> None:
    train, held = source("s", "a", "b"), source("h", "b", "x")
    table = read_table(find_leaks(train, held, None).to_parquet())
    assert table.to_pylist() == [
        {
            "kind": "real",
            "id": "1/b",
            "class_name": "class 1",
            "heldout_file": "0/b",
            "exact": True,
            "distance": 0,
            "hash_bits": 0,
        }
    ]
    nothing = find_leaks(train, source("h", "x", "y"), None)
    assert nothing.leaks == () and read_table(nothing.to_parquet()).schema.names == table.schema.names
    assert nothing.summary().startswith("leaks: 0 of 2 held-out images are shown in training")


def test_signatures_of_other_images_are_refused() -> None:
    two, one = on_a_line([0, 1], [0, 9]), on_a_line([0], [50])
    for rows, others in ((one, one), (two, two)):
        with pytest.raises(ValueError, match=r"signatures for \d images"):
            Compared(
                real_files=["a", "b"],
                real=rows,
                heldout_files=["x"],
                heldout=others,
                threshold=Threshold(1, 1),
                hash_radius=0,
            )


def test_photos_of_the_heldout_set_do_not_leak_and_their_changed_copies_do() -> None:
    embedder = Embedder.load(LITE0, 16, device="cpu")

    def signed(images: list[np.ndarray], labels: np.ndarray) -> Signatures:
        rows = embedder.signatures(np.stack(images))
        hashes = [perceptual_hash(image) for image in images]
        return Signatures.from_columns(labels.tolist(), hashes, [row.tobytes() for row in rows])

    few, test = pool(), heldout_photos()
    chosen = np.concatenate([np.flatnonzero(few.labels == label)[:5] for label in range(len(CLASSES))])
    real = [compose(few.pixels[row], "grass", int(row)) for row in chosen]
    held = [compose(test.pixels[row], "grass", 10_000 + row) for row in range(60)]
    # Saved again by somebody, a little brighter, and under another label.
    copies = [jpeg(np.clip(image * 1.03, 0, 255).astype(np.uint8)) for image in held[:20]]
    real_rows, held_rows = signed(real, few.labels[chosen]), signed(held, test.labels[:60])
    copied = signed(copies, (test.labels[:20] + 1) % len(CLASSES))
    across = calibrate(real_rows, len(CLASSES)).across
    train = Source("s", CLASSES, tuple(SourceImage(str(row), int(few.labels[row]), f"{row}.png") for row in chosen))
    rest = Source("h", CLASSES, tuple(SourceImage(f"h{row}", int(test.labels[row]), f"{row}.png") for row in range(60)))
    compared = Compared(
        real_files=[image.where for image in train.images],
        real=real_rows,
        heldout_files=[image.where for image in rest.images],
        heldout=held_rows,
        threshold=across,
        hash_radius=HASH_RADIUS,
    )
    report = find_leaks(train, rest, compared, [([f"copy {k}" for k in range(20)], copied)])
    named = {(leak.id, leak.heldout_file) for leak in report.leaks if leak.kind == SYNTHETIC}
    assert len(named & {(f"copy {k}", f"{k}.png") for k in range(20)}) >= 18
    assert report.count(REAL) <= 1


def jpeg(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)
    return np.asarray(Image.open(buffer))
