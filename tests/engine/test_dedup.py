"""Near-copies in a real run: rejected in plan order, their places refilled, the same for any number of actors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import diffii
from engine.expand import expand
from engine.verify import status, verify
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
    if verify(str(straight)).short == 0:
        assert verify(str(grown)).digest == verify(str(straight)).digest


def _rows(out: Path) -> list[dict[str, object]]:
    snapshot = diffii.open(str(out))
    return [snapshot.row(index) for index in range(len(snapshot))]
