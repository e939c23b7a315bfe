"""Images and labels out of Parquet files, as the hub, pandas and Spark write them, and found again by their place."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffii.dataset.storage import Storage
from diffii.errors import SourceError
from diffii.images import UnreadableImage
from diffii.sources import opener
from diffii.sources.interface import NO_LABEL, Listing
from diffii.sources.parquet import SUFFIX, ParquetImages
from diffii.sources.splits import shards

pytest_plugins = ["tests.s3"]

NAMES = ["a/b", ".", "été"]


def contents(count: int) -> list[bytes]:
    return [f"image {number}".encode() for number in range(count)]


def parquet(
    labels: Sequence[Any], names: list[str] | None = None, *, plain: bool = False, column: str = "label", **options: Any
) -> bytes:
    """A file of one row per label, with `datasets`' metadata when there are names."""
    images = contents(len(labels))
    image: list[Any] = images if plain else [{"bytes": data, "path": None} for data in images]
    table = pa.table({"image": image, column: labels})
    if names is not None:
        features = {"image": {"_type": "Image"}, column: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def folder(place: Path, files: dict[str, bytes]) -> str:
    for name, data in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    return str(place)


def labelled(url: str) -> tuple[list[tuple[str, int]], Listing]:
    listing = ParquetImages(Storage(url)).listing()
    return [(entry.where, entry.label) for entry in listing.entries], listing


def unlabelled(listing: Listing) -> list[str]:
    return [place for place, reason in listing.skipped if reason == NO_LABEL]


def test_class_names_come_from_the_metadata(tmp_path: Path) -> None:
    url = folder(tmp_path, {"train-00000.parquet": parquet([2, 0, 1, 0], NAMES)})
    rows, reader = labelled(url)
    assert reader.classes == tuple(NAMES)
    assert rows == [(f"train-00000.parquet#{row}", label) for row, label in enumerate([2, 0, 1, 0])]
    assert [opener(url)(place) for place, _ in rows] == contents(4)


def test_string_labels_are_classes_in_natural_order(tmp_path: Path) -> None:
    _, reader = labelled(folder(tmp_path, {"a.parquet": parquet(["10", "été", "9", "a/b", "²"])}))
    assert reader.classes == ("9", "10", "a/b", "²", "été")


def test_integer_labels_without_names_are_classes_in_their_order(tmp_path: Path) -> None:
    rows, reader = labelled(folder(tmp_path, {"a.parquet": parquet([10, 2, 10, 7])}))
    assert reader.classes == ("2", "7", "10")
    assert [label for _, label in rows] == [2, 0, 2, 1]


def test_labels_do_not_depend_on_the_order_of_a_set(tmp_path: Path) -> None:
    url = folder(tmp_path, {"a.parquet": parquet(["7", "07", "007", "b", "a"])})
    code = "import sys; from diffii.sources import open_source\nprint(open_source(sys.argv[1]).listing().classes)"
    orders = {
        subprocess.run(
            [sys.executable, "-c", code, url],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            check=True,
            capture_output=True,
        ).stdout
        for seed in range(3)
    }
    assert orders == {b"('007', '07', '7', 'a', 'b')\n"}


def test_plain_binary_images_are_read(tmp_path: Path) -> None:
    url = folder(tmp_path, {"a.parquet": parquet([0, 1], NAMES, plain=True)})
    assert [opener(url)(place) for place, _ in labelled(url)[0]] == contents(2)


@pytest.mark.parametrize("column", ["labels", "fine_label", "class", "class_name"])
def test_other_usual_names_of_the_label_are_found(tmp_path: Path, column: str) -> None:
    rows, _ = labelled(folder(tmp_path, {"a.parquet": parquet(["x", "y"], column=column)}))
    assert [label for _, label in rows] == [0, 1]


def test_rows_without_a_label_are_named(tmp_path: Path) -> None:
    rows, reader = labelled(folder(tmp_path, {"a.parquet": parquet([0, None, -1, 3, 2], NAMES)}))
    assert rows == [("a.parquet#0", 0), ("a.parquet#4", 2)]
    assert unlabelled(reader) == ["a.parquet#1", "a.parquet#2", "a.parquet#3"]


def test_a_class_may_be_called_none(tmp_path: Path) -> None:
    rows, reader = labelled(folder(tmp_path, {"a.parquet": parquet(["None", None, "some"])}))
    assert reader.classes == ("None", "some")
    assert rows == [("a.parquet#0", 0), ("a.parquet#2", 1)]
    assert unlabelled(reader) == ["a.parquet#1"]


def test_a_single_file_is_a_source(tmp_path: Path) -> None:
    url = folder(tmp_path, {"few.parquet": parquet([1, 0], NAMES), "other.parquet": parquet(["x"])}) + "/few.parquet"
    assert shards(Storage(url), SUFFIX)
    rows, reader = labelled(url)
    assert rows == [("few.parquet#0", 1), ("few.parquet#1", 0)] and reader.classes == tuple(NAMES)
    assert [opener(url)(place) for place, _ in rows] == contents(2)


@pytest.mark.parametrize("single", [False, True])
def test_parquet_on_s3_is_read_alike(s3_url: str, single: bool) -> None:
    Storage(s3_url).put_once("data/train-0.parquet", parquet([1, 0], NAMES))
    url = f"{s3_url}/data/train-0.parquet" if single else s3_url
    rows, _ = labelled(url)
    assert rows == [("train-0.parquet#0" if single else "data/train-0.parquet#0", 1), (rows[1][0], 0)]
    assert [opener(url)(place) for place, _ in rows] == contents(2)


def test_a_folder_named_like_a_file_holds_parts(tmp_path: Path) -> None:
    url = folder(tmp_path / "birds.parquet", {"part-0.parquet": parquet(["x", "y"]), "_SUCCESS": b""})
    assert [place for place, _ in labelled(url)[0]] == ["part-0.parquet#0", "part-0.parquet#1"]


def test_only_the_training_split_is_read(tmp_path: Path) -> None:
    one = parquet(["x"])
    url = folder(tmp_path, {f"data/{split}-0.parquet": one for split in ("test", "train", "validation")})
    assert [place for place, _ in labelled(url)[0]] == ["data/train-0.parquet#0"]


def test_without_split_names_every_file_is_read_in_order(tmp_path: Path) -> None:
    one = parquet(["x"])
    names = ["b.parquet", "a.parquet", "._a.parquet", "_metadata.parquet", "notes.txt", "metadata.parquet"]
    url = folder(tmp_path, dict.fromkeys(names, one))
    assert [place for place, _ in labelled(url)[0]] == ["a.parquet#0", "b.parquet#0"]


def test_an_image_folder_with_metadata_beside_it_is_no_parquet_source(tmp_path: Path) -> None:
    assert not shards(Storage(folder(tmp_path, {"metadata.parquet": parquet(["x"]), "cat/1.jpg": b""})), SUFFIX)


def test_rows_are_found_across_row_groups_from_several_threads(tmp_path: Path) -> None:
    url = folder(tmp_path, {"a.parquet": parquet(["x"] * 50, row_group_size=7), "b.parquet": parquet(["x"] * 9)})
    places = [place for place, _ in labelled(url)[0]]
    read, order = opener(url), [*range(58, -1, -1), *range(59)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read, [places[number] for number in order]))
    expected = contents(50) + contents(9)
    assert found == [expected[number] for number in order]


def test_a_row_without_bytes_is_unreadable(tmp_path: Path) -> None:
    image = [None, {"bytes": None, "path": "x.jpg"}]
    pq.write_table(pa.table({"image": image, "label": ["x", "x"]}), tmp_path / "a.parquet")
    read = opener(str(tmp_path))
    for row in range(2):
        with pytest.raises(UnreadableImage, match="holds no image bytes"):
            read(f"a.parquet#{row}")


@pytest.mark.parametrize("part", [0, 3, 50, -1])
def test_a_truncated_file_is_named(tmp_path: Path, part: int) -> None:
    url = folder(tmp_path, {"a.parquet": parquet(["x"]), "b.parquet": parquet(["x"])[:part]})
    with pytest.raises(SourceError, match=r"b\.parquet is not a whole Parquet file"):
        labelled(url)


def test_damaged_pages_are_named(tmp_path: Path) -> None:
    data = parquet(["x"] * 200, row_group_size=200, use_dictionary=False, compression="zstd")
    metadata = pq.read_metadata(io.BytesIO(data)).row_group(0)
    for column, damaged in (("image", 0), ("label", 2)):
        start = metadata.column(damaged).data_page_offset
        hole = data[:start] + b"\xff" * 60 + data[start + 60 :]
        url = folder(tmp_path / column, {"a.parquet": hole})
        with pytest.raises(SourceError, match=r"a\.parquet is not a whole Parquet file"):
            opener(url)("a.parquet#0") if column == "image" else labelled(url)


@pytest.mark.parametrize("missing", ["image", "label"])
def test_a_missing_column_is_told_with_those_there_are(tmp_path: Path, missing: str) -> None:
    columns = {"image": [b"1"], "label": ["x"], "width": [1]}
    del columns[missing]
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=f"a.parquet has no column '{missing}'; its columns are .*width"):
        labelled(str(tmp_path))


def test_a_file_that_shrank_is_told(tmp_path: Path) -> None:
    read = opener(folder(tmp_path, {"a.parquet": parquet(["x", "x"])}))
    with pytest.raises(SourceError, match=r"a\.parquet has no row 2 any more"):
        read("a.parquet#2")


def test_files_of_a_folder_are_opened_by_name(tmp_path: Path) -> None:
    url = folder(tmp_path, {"cat/a#1.jpg": b"bytes"})
    assert opener(url)("cat/a#1.jpg") == b"bytes"
    with pytest.raises(FileNotFoundError):
        opener(url)("cat/a#2.jpg")


def test_a_group_too_large_to_hold_is_read_a_little_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffii.sources.parquet._GROUP_BYTES", 1)
    monkeypatch.setattr("diffii.sources.parquet._ROWS", 7)
    url = folder(tmp_path, {"a.parquet": parquet(["x"] * 50, row_group_size=30)})
    read, order = opener(url), [*range(50), 3, 2, 49, 0, 31, 30, 29]
    assert [read(f"a.parquet#{row}") for row in order] == [contents(50)[row] for row in order]


def test_captions_and_contexts_are_taken_along(tmp_path: Path) -> None:
    table = pa.table(
        {"image": contents(3), "label": ["x"] * 3, "text": ["a  bird", None, ""], "context": ["", "b", ""]}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    found = ParquetImages(Storage(str(tmp_path))).listing().entries
    assert [(entry.caption, entry.context) for entry in found] == [("a bird", ""), ("", "b"), ("", "")]
    table = pa.table({"image": contents(2), "label": ["x"] * 2, "caption": [["first", "second"], []]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert [entry.caption for entry in ParquetImages(Storage(str(tmp_path))).listing().entries] == ["first", ""]
