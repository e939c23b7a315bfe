"""Near-copies in a real run: rejected in plan order, their places refilled, the same for any number of actors."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diffii
from diffii.dataset import layout
from diffii.embedding import Embedder
from diffii.errors import ConfigError
from diffii.features import perceptual_hash
from diffii.images import decode
from engine.copy_thresholds import Calibration
from engine.expand import expand
from engine.holdout import leak_report, sign_tasks
from engine.near_copy_index import build_index, calibrate_run, table_signatures
from engine.prepare import load_run
from engine.run import Run
from engine.scan import read_source
from engine.source import Source, iter_bytes
from engine.status import status
from engine.verify import verify
from tests.engine.sources import garments
from tests.engine.test_expand import config

pytestmark = pytest.mark.slow

# Three steps draw nothing but smears, which a loose threshold calls copies of one another: many, but not all.
DEDUP: dict[str, Any] = {
    "dedup__embedder": "lite0",
    "dedup__alone": 0.35,
    "dedup__with_hash": 0.45,
    "expansion__max_attempts": 3,
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return garments(tmp_path_factory.mktemp("source"), shots=3, classes=3)


@pytest.fixture(scope="module")
def straight(source: Path, tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> Path:
    out = tmp_path_factory.mktemp("straight") / "out"
    assert expand(config(source, out, actors__max=1, expansion__factor=6, **DEDUP)).complete
    return out


def test_near_copies_are_rejected_and_their_places_refilled(straight: Path) -> None:
    found, progress = verify(str(straight)), status(str(straight))
    assert found.problems == found.orphans == []
    assert found.rejected > 0
    assert found.rows > 54, "a second wave was made"
    assert found.kept + found.short == 54
    assert set(progress.reasons) <= {"rejected: near-copy", "rejected: near-real", "rejected: low-detail"}
    assert max(progress.classes.values()) <= 18
    print(f"{found.rows} rows, {found.rejected} rejected, {found.short} short: {progress.reasons}")


def test_two_actors_and_growth_on_the_way_give_the_same_rows(source: Path, straight: Path, tmp_path: Path) -> None:
    grown, two = tmp_path / "grown", tmp_path / "two"
    expand(config(source, two, actors__min=2, actors__max=2, expansion__factor=6, **DEDUP))
    assert verify(str(two)).shards_digest == verify(str(straight)).shards_digest
    expand(config(source, grown, expansion__factor=3, **DEDUP))
    before = [row["sample_id"] for row in _rows(grown)]
    expand(config(source, grown, expansion__factor=6, **DEDUP))
    assert [row["sample_id"] for row in _rows(grown)][: len(before)] == before
    assert verify(str(grown)).digest == verify(str(straight)).digest


def test_growth_fills_classes_that_were_short_as_far_as_one_step_would(source: Path, tmp_path: Path) -> None:
    # A quarter more rows than wanted do not make up for what so loose a threshold rejects.
    few: dict[str, Any] = {**DEDUP, "dedup__alone": 0.6, "dedup__with_hash": 0.7, "expansion__max_attempts": 1.25}
    at_once, grown = tmp_path / "at-once", tmp_path / "grown"
    assert expand(config(source, grown, expansion__factor=3, **few)).complete
    short = status(str(grown)).short
    assert short and set(short) <= set(status(str(grown)).classes)
    for name, why in short.items():
        kept = status(str(grown)).classes[name]
        assert why.startswith(f"{kept} of 9 kept") and "max_attempts" in why
    assert expand(config(source, grown, expansion__factor=6, **few)).complete
    assert expand(config(source, at_once, expansion__factor=6, **few)).complete
    grown_now, straight_now = verify(str(grown)), verify(str(at_once))
    assert grown_now.problems == straight_now.problems == []
    assert grown_now.short == straight_now.short > 0
    assert grown_now.digest == straight_now.digest
    assert status(str(grown)).classes == status(str(at_once)).classes
    assert status(str(grown)).short == status(str(at_once)).short
    more = config(source, grown, expansion__factor=6, **{**few, "expansion__max_attempts": 1.2})
    with pytest.raises(ConfigError, match="at least the earlier max_attempts"):
        expand(more)


def test_thresholds_are_measured_once_and_stand_in_the_log(source: Path, straight: Path) -> None:
    run = load_run(str(straight))
    assert run.history.calibration is not None
    stored = Calibration.from_record(run.history.calibration.record)
    assert stored == calibrate_run(run)
    assert status(str(straight)).near_copies == stored.to_record()
    index = build_index(run, stored)
    again = [index.decide(table_signatures(table)) for table in run.sidecars(["label", "phash", "embedding"])]
    assert {reason for reasons in again for reason in reasons} == {"near-copy"}, "every kept row is in the index"


def test_heldout_images_are_looked_for_in_what_was_made(source: Path, straight: Path, tmp_path: Path) -> None:
    # Held out by mistake: one training photo, and a generated image that somebody saved under another class.
    held = garments(tmp_path / "held", shots=1, classes=3)
    copied = next(source.glob("Bag/*.png"))
    shutil.copy(copied, held / "Bag" / "copied.png")
    row = next(row for row in _rows(straight) if row["class_name"] == "Coat")
    (held / "Ankle boot" / "saved.png").write_bytes(row["image"]["bytes"])
    run = load_run(str(straight))
    heldout = read_source(str(held))
    _sign(run, heldout)
    report = leak_report(run, heldout)
    exact = [leak for leak in report.leaks if leak.exact]
    assert [(leak.id, leak.heldout_file) for leak in exact] == [(f"Bag/{copied.name}", "Bag/copied.png")]
    assert (report.real, report.synthetic, report.near_copies) == (9, len(_rows(straight)), True)
    saved = [leak for leak in report.leaks if leak.id == row["sample_id"]]
    assert [(leak.class_name, leak.distance, leak.hash_bits) for leak in saved] == [("Coat", 0, 0)]


def _sign(run: Run, heldout: Source) -> None:
    """What the inversion stage does for held-out images."""
    embedder = Embedder.load("lite0", run.config.inversion.micro_batch)
    pixels = [np.asarray(decode(data)) for data in iter_bytes(heldout, heldout.images)]
    for task, image, embedding in zip(
        sign_tasks(run, heldout), pixels, embedder.signatures(np.stack(pixels)), strict=True
    ):
        run.storage.put_once(layout.signature(task.signature), perceptual_hash(image) + embedding.tobytes())


def _rows(out: Path) -> list[dict[str, Any]]:
    snapshot = diffii.open(str(out))
    return [snapshot.row(index) for index in range(len(snapshot))]
