"""Near-copies: decided in plan order, exactly, however rows are cut into chunks and whatever a resume rebuilds."""

from __future__ import annotations

import io
import json
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffii.embedding import LITE0, Embedder
from diffii.errors import OutputError
from diffii.features import perceptual_hash
from diffii.garments.catalog import CLASSES, CONTEXTS
from diffii.garments.data import pool
from diffii.garments.scene import compose
from diffii.signatures import DIMENSIONS, LIMIT, Signatures
from engine.copy_thresholds import HASH_RADIUS, Calibration, calibrate
from engine.near_copies import FARTHEST, NEAR_COPY, NEAR_REAL, NearCopies, Threshold, leaks

CLASS_COUNT = 3
THRESHOLDS = [Threshold(900, 2500), Threshold(1600, 1600), Threshold(0, 4000)]


def rows(rng: np.random.Generator, count: int, classes: int = CLASS_COUNT) -> Signatures:
    """Rows in clusters, so that many are near-copies, many are just beyond, and some hashes agree."""
    centres = rng.integers(-LIMIT, LIMIT + 1, (4, DIMENSIONS))
    which = rng.integers(0, 4, count)
    spread = rng.choice([0, 1, 3, 5], count)[:, None]
    values = centres[which] + np.rint(spread * rng.standard_normal((count, DIMENSIONS))).astype(np.int64)
    hashes = np.array([0x0123456789ABCDEF, 0xFFFF0000FFFF0000], dtype=np.uint64)[which % 2]
    flips = np.array([sum(1 << int(b) for b in rng.choice(64, k, replace=False)) for k in rng.integers(0, 16, count)])
    return Signatures(
        rng.integers(0, classes, count),
        hashes ^ flips.astype(np.uint64),
        np.clip(values, -LIMIT, LIMIT).astype(np.int8),
    )


def brute_force(real: Signatures, planned: Signatures, radius: int) -> list[str | None]:
    """The rule as it is written, one pair at a time, in Python's own integers."""

    def near(one: Signatures, i: int, other: Signatures, j: int) -> bool:
        threshold = THRESHOLDS[one.labels[i]]
        if one.labels[i] != other.labels[j]:
            return False
        distance = sum((int(a) - int(b)) ** 2 for a, b in zip(one.embeddings[i], other.embeddings[j], strict=True))
        apart = (int(one.hashes[i]) ^ int(other.hashes[j])).bit_count()
        return distance <= threshold.alone or (distance <= threshold.with_hash and apart <= radius)

    reasons: list[str | None] = []
    for i in range(len(planned)):
        if any(near(planned, i, real, j) for j in range(len(real))):
            reasons.append(NEAR_REAL)
        elif any(near(planned, i, planned, j) for j in range(i) if reasons[j] is None):
            reasons.append(NEAR_COPY)
        else:
            reasons.append(None)
    return reasons


def accepted(reasons: list[str | None]) -> np.ndarray:
    return np.flatnonzero([reason is None for reason in reasons])


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), radius=st.integers(0, 12), cuts=st.lists(st.integers(0, 60), max_size=6))
def test_decisions_are_the_written_rule_whatever_the_chunks(seed: int, radius: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    everything = rows(rng, 70)
    real, planned = everything.take(np.arange(10)), everything.take(np.arange(10, 70))
    index = NearCopies(THRESHOLDS, radius, real)
    decided: list[str | None] = []
    for part in np.split(np.arange(len(planned)), sorted(cuts)):
        decided += index.decide(planned.take(part))
    assert decided == brute_force(real, planned, radius)
    assert None in decided and NEAR_COPY in decided  # the cases above are no trivial ones


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), stop=st.integers(0, 120))
def test_an_index_rebuilt_from_accepted_rows_goes_on_as_the_first_would(seed: int, stop: int) -> None:
    rng = np.random.default_rng(seed)
    everything = rows(rng, 130)
    real, planned = everything.take(np.arange(10)), everything.take(np.arange(10, 130))
    straight = NearCopies(THRESHOLDS, 6, real).decide(planned)
    before = planned.take(accepted(straight[:stop]))
    resumed = NearCopies(THRESHOLDS, 6, real)
    shuffled = rng.permutation(len(before))
    for part in np.array_split(shuffled, 3):
        resumed.add(before.take(part))
    assert resumed.decide(planned.take(np.arange(stop, 120))) == straight[stop:]


def test_large_indices_are_exact() -> None:
    # Past several blocks, calls and doublings, with the largest sums that can occur: compared in int64.
    rng = np.random.default_rng(5)
    signs = rng.choice([-LIMIT, LIMIT], (5000, DIMENSIONS)).astype(np.int8)
    index = Signatures(np.zeros(5000, np.int64), rng.integers(0, 2**64, 5000, dtype=np.uint64), signs)
    queries = index.take(rng.integers(0, 5000, 300))
    moved = queries.embeddings.copy()
    moved[:, :3] -= np.sign(moved[:, :3])
    queries = Signatures(queries.labels, rng.integers(0, 2**64, 300, dtype=np.uint64), moved)
    a, b = queries.embeddings.astype(np.int64), index.embeddings.astype(np.int64)
    distances = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
    for limit in (-1, 2, 3, int(np.median(distances)), FARTHEST - 1, FARTHEST):
        near = distances <= limit
        first = np.where(near.any(1), near.argmax(1), -1)
        assert np.array_equal(leaks(queries, index, Threshold(limit, limit), 64), first)
    assert distances.min() == 3


def test_growing_row_by_row_forgets_nothing() -> None:
    rng = np.random.default_rng(8)
    values = np.clip(np.rint(16 * rng.standard_normal((300, DIMENSIONS))), -LIMIT, LIMIT).astype(np.int8)
    distinct = Signatures(np.zeros(300, np.int64), rng.integers(0, 2**64, 300, dtype=np.uint64), values)
    index = NearCopies(THRESHOLDS, 6, distinct.take(np.arange(0)))
    assert [index.decide(distinct.take(np.array([row]))) for row in range(300)] == [[None]] * 300
    assert index.decide(distinct) == [NEAR_COPY] * 300


def test_a_row_is_compared_within_its_class_only_and_a_leak_across_classes() -> None:
    row = rows(np.random.default_rng(1), 1, classes=1)
    twin = Signatures(np.array([1]), row.hashes, row.embeddings)
    index = NearCopies(THRESHOLDS, 8, row)
    assert index.decide(twin) == [None]
    assert index.decide(row) == [NEAR_REAL]
    assert leaks(twin, row, THRESHOLDS[1], 8).tolist() == [0]


def test_stored_columns_come_back_as_they_were() -> None:
    given_rows = rows(np.random.default_rng(2), 5)
    image = np.random.default_rng(3).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    phash = perceptual_hash(image)
    back = Signatures.from_columns(
        given_rows.labels.tolist(), [phash] * 5, [row.tobytes() for row in given_rows.embeddings]
    )
    assert np.array_equal(back.embeddings, given_rows.embeddings) and np.array_equal(back.labels, given_rows.labels)
    assert [int(value) for value in back.hashes] == [int.from_bytes(phash, "big")] * 5
    assert len(Signatures.from_columns([], [], [])) == 0


def test_wrong_rows_and_settings_are_refused() -> None:
    good = rows(np.random.default_rng(2), 3)
    with pytest.raises(ValueError, match="float32 sums"):
        Signatures(good.labels, good.hashes, np.full((3, DIMENSIONS), 64, np.int8))
    with pytest.raises(ValueError, match="float32 sums"):
        Signatures(good.labels, good.hashes, np.full((3, DIMENSIONS), -128, np.int8))
    with pytest.raises(ValueError, match="hashes are uint64"):
        Signatures(good.labels, good.hashes[:2], good.embeddings)
    with pytest.raises(ValueError, match="embeddings are int8"):
        Signatures(good.labels, good.hashes, good.embeddings[:, :10])
    with pytest.raises(ValueError, match="no threshold"):
        NearCopies(THRESHOLDS[:1], 8, Signatures(np.array([1, 1, 1]), good.hashes, good.embeddings))
    with pytest.raises(ValueError, match="hash radius"):
        NearCopies(THRESHOLDS, 65, good)
    with pytest.raises(ValueError, match="squared distances"):
        Threshold(FARTHEST + 1, 0)


# -- calibration ------------------------------------------------------------------------------------------------------


def at(label: int, *places: int) -> Signatures:
    """Images of one class on a line: squared distances are squares of the gaps."""
    embeddings = np.zeros((len(places), DIMENSIONS), np.int8)
    embeddings[:, 0] = places
    return Signatures(np.full(len(places), label), np.zeros(len(places), np.uint64), embeddings)


def together(*parts: Signatures) -> Signatures:
    return Signatures(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("labels", "hashes", "embeddings"))
    )


def test_a_small_class_takes_the_pooled_median() -> None:
    real = together(at(0, 0, 10, 20, 30, 40), at(1, 0, 60), at(2, 5), at(3, 0, 40, -40))
    found = calibrate(real, 5)
    assert found.nearest == {0: 100, 3: 1600}
    # Seven spreads belong to classes of three and more: five times 100, three times 1600.
    assert found.pooled == 100
    assert found.thresholds[1] == found.thresholds[2] == found.thresholds[4]
    assert found.thresholds[3].alone > found.thresholds[1].alone > 0
    assert all(threshold.alone <= threshold.with_hash for threshold in found.thresholds)


def test_calibration_does_not_depend_on_the_order_of_images_nor_on_a_pair_of_duplicates() -> None:
    real = rows(np.random.default_rng(4), 60)
    assert calibrate(real, CLASS_COUNT) == calibrate(real.take(np.random.default_rng(1).permutation(60)), CLASS_COUNT)
    assert calibrate(at(0, 0, 0, 20, 40, 60), 1).nearest == {0: 400}


def test_more_photos_of_the_same_kind_do_not_tighten_the_threshold() -> None:
    rng = np.random.default_rng(0)
    values = np.clip(np.rint(16 * rng.standard_normal((400, DIMENSIONS))), -LIMIT, LIMIT).astype(np.int8)
    every = Signatures(np.zeros(400, np.int64), np.zeros(400, np.uint64), values)
    few = np.mean([calibrate(every.take(np.arange(k, k + 5)), 1).pooled for k in range(0, 200, 5)])
    assert 0.9 < calibrate(every, 1).pooled / few < 1.1


def test_without_three_images_in_any_class_all_pairs_serve_and_without_pairs_the_default() -> None:
    assert calibrate(together(at(0, 0, 10), at(1, 5)), 2).pooled == 100
    alone = calibrate(together(at(0, 5), at(1, 5)), 2)
    assert alone.thresholds[0].alone > 0 and alone.nearest == {}


def test_a_calibration_comes_back_from_the_log_as_it_was() -> None:
    for real in (rows(np.random.default_rng(4), 60), at(0, 5), together(at(0, 0, 10, 20), at(2, 5, 60))):
        found = calibrate(real, CLASS_COUNT, 0.2, 0.3)
        record = json.loads(json.dumps(found.to_record()))
        assert Calibration.from_record(record) == found
    assert found.across == found.thresholds[1], "a class of no image takes the pooled threshold"


@pytest.mark.parametrize("change", [{"thresholds": [[1]]}, {"across": [1, FARTHEST + 1]}, {"medians": [3]}])
def test_a_damaged_calibration_is_an_error_of_the_output(change: dict[str, Any]) -> None:
    record = calibrate(at(0, 0, 10, 20), 1).to_record()
    for broken in ({**record, **change}, {key: record[key] for key in record if key not in change}):
        with pytest.raises(OutputError, match="near-copies is damaged"):
            Calibration.from_record(broken)


# -- real images ------------------------------------------------------------------------------------------------------

PER_CLASS = 12


@cache
def garments() -> tuple[np.ndarray, np.ndarray]:
    """120 photos of the pool at 32 px, contexts mixed, and their classes."""
    photos, contexts = pool(), list(CONTEXTS)
    chosen = np.concatenate([np.flatnonzero(photos.labels == label)[:PER_CLASS] for label in range(len(CLASSES))])
    images = [compose(photos.pixels[row], contexts[k % len(contexts)], k) for k, row in enumerate(chosen)]
    return np.stack(images), photos.labels[chosen]


@cache
def embedder() -> Embedder:
    return Embedder.load(LITE0, 16, device="cpu")


def signed(images: np.ndarray, labels: np.ndarray) -> Signatures:
    hashes = [perceptual_hash(image) for image in images]
    return Signatures.from_columns(labels.tolist(), hashes, [row.tobytes() for row in embedder().signatures(images)])


@cache
def real_garments() -> tuple[Signatures, list[Threshold]]:
    signatures = signed(*garments())
    return signatures, list(calibrate(signatures, len(CLASSES)).thresholds)


def jpeg(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize("change", ["same", "shift", "jpeg", "brighter"])
def test_a_slightly_changed_photo_is_found(change: str) -> None:
    images, labels = garments()
    changed = {
        "same": lambda: images,
        "shift": lambda: np.roll(images, 1, axis=2),
        "jpeg": lambda: np.stack([jpeg(image) for image in images]),
        "brighter": lambda: np.clip(images * 1.05 + 2.0, 0, 255).astype(np.uint8),
    }[change]()
    signatures, thresholds = real_garments()
    reasons = NearCopies(thresholds, HASH_RADIUS, signatures).decide(signed(changed, labels))
    # A shift by one pixel of 32 is a large change, and JPEG blurs stars and grass at this size: nine tenths are found.
    assert reasons.count(NEAR_REAL) >= {"same": 120, "brighter": 118}.get(change, 104)


def test_distinct_photos_of_a_class_are_not_copies() -> None:
    signatures, thresholds = real_garments()
    reasons = NearCopies(thresholds, HASH_RADIUS, signatures.take(np.arange(0))).decide(signatures)
    assert reasons.count(None) >= 117


def test_boots_whose_hashes_agree_are_not_confirmed() -> None:
    photos = pool()
    boots = photos.pixels[photos.labels == CLASSES.index("Ankle boot")][:60]
    images = np.stack([compose(boot, "studio", 1) for boot in boots])
    rows_of_boots = signed(images, np.full(len(boots), CLASSES.index("Ankle boot")))
    bits = np.unpackbits(rows_of_boots.hashes.view(np.uint8).reshape(-1, 8), axis=1).astype(int)
    apart = (bits[:, None] != bits[None]).sum(2) + 99 * np.eye(len(boots), dtype=int)
    assert (apart.min(1) <= 8).mean() > 0.3  # by the hash alone these would be copies
    thresholds = real_garments()[1]
    reasons = NearCopies(thresholds, 8, rows_of_boots.take(np.arange(0))).decide(rows_of_boots)
    assert reasons.count(None) >= 54
