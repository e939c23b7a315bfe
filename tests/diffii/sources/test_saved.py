"""Directories of `save_to_disk`: rows found again in any order, splits, and what was cut off."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from diffii.errors import SourceError
from diffii.sources import Splits, open_source, opener
from engine.scan import read_source
from tests.diffii.sources.layouts import png, save_splits, save_to_disk, saved

pytest_plugins = ["tests.s3"]

ROWS = [(png(number, 2), number % 3) for number in range(250)]
"""More than `datasets` puts into one record batch."""
NAMES = ["a", "b", "c"]


def test_rows_are_found_in_any_order_from_several_threads(tmp_path: Path) -> None:
    url = save_to_disk(tmp_path / "set", NAMES, ROWS)
    places = [entry.where for entry in open_source(url).listing().entries]
    order = [(97 * number) % len(ROWS) for number in range(len(ROWS))]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(opener(url), [places[number] for number in order]))
    assert found == [ROWS[number][0] for number in order]


def test_several_files_are_one_source(tmp_path: Path) -> None:
    saved(NAMES, ROWS).save_to_disk(str(tmp_path / "many"), num_shards=3)
    one = read_source(save_to_disk(tmp_path / "one", NAMES, ROWS))
    many = read_source(str(tmp_path / "many"))
    assert many.digest == one.digest
    assert {image.where.partition("#")[0] for image in many.images} == {
        f"data-0000{number}-of-00003.arrow" for number in range(3)
    }


def test_splits_are_folders(tmp_path: Path) -> None:
    url = save_splits(tmp_path / "set", NAMES, ROWS)
    reader = open_source(url)
    assert len(reader.listing().entries) == len(ROWS)
    assert [entry.where.partition("/")[0] for entry in reader.listing(Splits("test")).entries] == ["test"]
    with pytest.raises(SourceError, match="has no split 'dev'; it has test, train"):
        reader.listing(Splits(without="dev"))


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_named(tmp_path: Path, part: float) -> None:
    url = save_to_disk(tmp_path / "set", NAMES, ROWS)
    file = tmp_path / "set" / "data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])
    with pytest.raises(SourceError, match=r"data-00000-of-00001\.arrow is not a whole Arrow stream"):
        open_source(url).listing()


def test_a_file_cut_between_two_batches_is_named(tmp_path: Path) -> None:
    url = save_to_disk(tmp_path / "set", NAMES, ROWS)
    last = open_source(url).listing().entries[-1].where
    file = tmp_path / "set" / "data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[: int(last.rpartition("@")[2].partition("+")[0])])
    with pytest.raises(SourceError, match="it ends too early"):
        open_source(url).listing()


def test_a_state_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    url = save_to_disk(tmp_path / "set", NAMES, ROWS)
    (tmp_path / "set" / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../x.arrow"}]}))
    with pytest.raises(SourceError, match=r"state\.json names no Arrow files"):
        open_source(url).listing()


def test_a_saved_data_set_on_s3_is_read_alike(s3_url: str, s3_client: Any, tmp_path: Path) -> None:
    here = read_source(save_to_disk(tmp_path / "set", NAMES, ROWS[:120]))
    for file in (tmp_path / "set").iterdir():
        s3_client.put_object(Bucket=s3_url.split("/")[2], Key=f"set/{file.name}", Body=file.read_bytes())
    assert read_source(s3_url).digest == here.digest
