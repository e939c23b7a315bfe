"""A snapshot is what was committed by its version: rows, images, labels, recipes, and the ones that fit a condition."""

from __future__ import annotations

import copy
import json
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

import diffii
from diffii.dataset import layout
from engine.progress import Silent
from engine.run import begin
from engine.waves import run_waves
from tests.diffii.pictured import expand_pictured
from tests.engine import imaginary_run
from tests.engine.imaginary_run import a_run, packed_here


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data set whose images are squares of a colour of their own."""
    url = str(tmp_path_factory.mktemp("set"))
    expand_pictured(url, expansion__factor=5.0)
    return url


def test_rows_images_labels_and_recipes_agree(url: str) -> None:
    snapshot = diffii.open(url)
    assert len(snapshot) == len(snapshot.labels) > 20
    for index in (0, 1, len(snapshot) // 2, len(snapshot) - 1):
        row, (image, label) = snapshot.row(index), snapshot[index]
        assert image.getpixel((0, 0)) == (row["label"], row["ordinal"], 7)
        assert label == row["label"] == snapshot.labels[index]
        assert snapshot.classes[label] == row["class_name"]
        assert snapshot.recipe(index)["ordinal"] == row["ordinal"]
        assert json.loads(row["recipe"]) == snapshot.recipe(index)
    assert snapshot.column("sample_id").to_pylist() == [snapshot.row(k)["sample_id"] for k in range(len(snapshot))]


def test_every_version_is_a_beginning_of_the_next(url: str) -> None:
    newest = diffii.open(url)
    ids = newest.column("sample_id").to_pylist()
    lengths = []
    for version in range(newest.version + 1):
        snapshot = diffii.open(url, version)
        lengths.append(len(snapshot))
        assert snapshot.column("sample_id").to_pylist() == ids[: len(snapshot)]
    assert lengths == sorted(lengths) and lengths[0] == 0 and lengths[-1] == len(newest)


def test_a_snapshot_stays_when_the_log_goes_on(tmp_path: Path) -> None:
    run = a_run(str(tmp_path))
    begin(run)
    run_waves(run, imaginary_run.maker(run), packed_here, Silent(), None)
    snapshot = diffii.open(str(tmp_path))
    mine = diffii.Snapshot(run.storage, run.history)
    before = (len(snapshot), snapshot.column("sample_id").to_pylist())
    more = a_run(str(tmp_path), expansion__factor=9.0)
    begin(more)
    run_waves(more, imaginary_run.maker(more), packed_here, Silent(), None)
    assert len(diffii.open(str(tmp_path))) > before[0]
    for old in (snapshot, mine):
        assert (len(old), old.column("sample_id").to_pylist()) == before


def test_conditions_as_expressions_and_as_filters(url: str) -> None:
    whole = diffii.open(url)
    some = whole.where([("class_name", "==", "class 1"), ("suffix", "in", ["on grass"])])
    rows = [whole.row(k) for k in range(len(whole))]
    expected = [row["sample_id"] for row in rows if row["class_name"] == "class 1" and row["suffix"] == "on grass"]
    assert 0 < len(expected) < len(whole)
    assert some.column("sample_id").to_pylist() == expected
    assert set(some.labels.tolist()) == {1}
    assert [some.row(k)["sample_id"] for k in range(len(some))] == expected
    assert some.image(0).getpixel((0, 0))[0] == 1  # type: ignore[index]
    wide = whole.where(pc.field("phi") > np.pi)
    assert [row["phi"] > np.pi for row in rows].count(True) == len(wide)
    assert wide.where(pc.field("label") == 1).column("sample_id").to_pylist() == [
        row["sample_id"] for row in rows if row["phi"] > np.pi and row["label"] == 1
    ]
    with pytest.raises(IndexError):
        some.row(len(expected))


def test_another_process_opens_the_same_version_and_rows(url: str) -> None:
    earlier = diffii.open(url, version=diffii.open(url).version - 1)
    some = earlier.where([("class_name", "==", "class 1")])
    some.row(0)  # what has been read is not to travel
    assert len(ForkingPickler.dumps(some)) < 5_000
    other = copy.copy(some)  # by the same way
    assert (other.url, other.version, len(other)) == (some.url, earlier.version, len(some))
    assert [other.row(k) for k in range(len(other))] == [some.row(k) for k in range(len(some))]


def test_conditions_that_nothing_fits_and_columns_that_are_not_there(url: str) -> None:
    whole = diffii.open(url)
    none = whole.where([("class_name", "==", "unicorn")])
    assert (len(none), none.labels.tolist(), list(none.tables())) == (0, [], [])
    with pytest.raises(KeyError, match="colour"):
        whole.where([("colour", "==", "red")])
    with pytest.raises(KeyError, match="has no column 'colour'"):
        whole.column("colour")
    assert len(none.where([("class_name", "==", "class 1")])) == 0


def test_before_the_first_shard_there_is_nothing_to_filter(url: str) -> None:
    empty = diffii.open(url, 0)
    assert (len(empty), empty.labels.tolist()) == (0, [])
    assert len(empty.where([("label", "==", 0)])) == 0


def test_random_access_reads_the_shard_of_the_row_alone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = diffii.open(url)
    opened: list[str] = []
    storage = snapshot._storage
    original = storage.open
    monkeypatch.setattr(storage, "open", lambda name: opened.append(name) or original(name))
    snapshot.row(len(snapshot) - 1)
    assert set(opened) == {layout.shard(len(snapshot.shards) - 1)}
    opened.clear()
    snapshot.image(len(snapshot) - 1)
    assert opened == []
