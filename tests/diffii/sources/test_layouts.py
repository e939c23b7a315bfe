"""Every layout gives the same source as the image folder of the same bytes: labels, class names, identity, bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffii.hashing import sha256
from diffii.sources import opener
from engine.scan import read_source
from engine.source import Source, iter_bytes
from tests.diffii.sources.layouts import LAYOUTS, folder, png

NAMES = sorted(["bugatti_veyron_16.4", "great horned owl", "v1.jpg", "été"])
NO_FOLDERS = ["bugatti_veyron_16.4", "a/b", "été", ".", "..", "", "0", "10", "9"]
"""No folder can be called all of that; a list of names can hold any."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_the_folder_of_the_same_bytes(tmp_path: Path, layout: str) -> None:
    rows = [(png(number), number % len(NAMES)) for number in range(10)]
    expected = read_source(folder(tmp_path / "folder", NAMES, rows))
    source = read_source(LAYOUTS[layout](tmp_path / "other", NAMES, rows))
    assert source.skipped == () and source.classes == tuple(NAMES)
    assert source.digest == expected.digest
    assert list(iter_bytes(source, source.images)) == list(iter_bytes(expected, expected.images))
    # Another process finds them again by the manifest alone.
    again = Source.from_parquet(source.url, source.classes, source.to_parquet())
    read = opener(again.url)
    assert [sha256(read(image.where)) for image in reversed(again.images)] == [
        image.sha256 for image in reversed(again.images)
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_that_no_folder_can_have_survive_by_index_and_name(tmp_path: Path, layout: str) -> None:
    # An empty cell is no name.
    names = [name for name in NO_FOLDERS if name or layout in ("hub Parquet", "save_to_disk")]
    rows = [(png(number), len(names) - 1 - number) for number in range(len(names))]
    source = read_source(LAYOUTS[layout](tmp_path / "source", names, rows))
    assert source.classes == tuple(names) and source.skipped == ()
    told = {image.sha256: image.label for image in source.images}
    assert told == {sha256(data): label for data, label in rows}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_thousand_classes(tmp_path: Path, layout: str) -> None:
    names = sorted(f"class {number:03d}/é" for number in range(1000))
    rows = [(png(number, 2), number) for number in range(1000)]
    source = read_source(LAYOUTS[layout](tmp_path / "source", names, rows))
    assert source.classes == tuple(names)
    assert {image.sha256: image.label for image in source.images} == {sha256(data): label for data, label in rows}
