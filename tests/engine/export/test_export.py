"""A copy in another format: the same bytes however it came about, never half, never of two things at once."""

from __future__ import annotations

import io
import json
import os
import shutil
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffii.dataset import layout
from diffii.dataset.storage import TEMPORARY, Storage
from diffii.errors import ConfigError, OutputError, SourceError
from diffii.provenance import DIGITAL_SOURCE_TYPE
from engine.export import along, parts
from engine.export.along import Along, catch_up
from engine.export.export import export
from engine.export.parts import make_part
from engine.formats.catalog import FORMATS
from engine.formats.image_folder import safe_names
from engine.run import Run, begin
from engine.verify import verify
from tests.readers.made import CLASSES, a_run, expanded, files, pixels, real_images

pytest_plugins = ["tests.s3"]
ALL = pytest.mark.parametrize("format", list(FORMATS))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real_images(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return expanded(str(tmp_path_factory.mktemp("made") / "out"), source)


def unnamed(found: dict[str, bytes], place: Path) -> dict[str, bytes]:
    """Files of a copy without the copy's own place, which its card names."""
    return found | {layout.CARD: found[layout.CARD].replace(str(place).encode(), b"HERE")}


# --- the same bytes


@ALL
def test_the_same_data_twice_gives_the_same_bytes(made: Run, source: Path, tmp_path: Path, format: str) -> None:
    again = expanded(str(tmp_path / "again"), source)
    places = [tmp_path / "one", tmp_path / "two"]
    for run, place in zip((made, again), places, strict=True):
        export(run.storage.url, str(place), format, include_real=True)
    one, two = (unnamed(files(place), place) for place in places)
    assert one.keys() == two.keys() and len(one) > 5
    assert {name for name in one if one[name] != two[name]} == set()


@ALL
def test_a_copy_that_grows_ends_as_one_that_was_made_at_once(
    made: Run, source: Path, tmp_path: Path, format: str
) -> None:
    url, place = str(tmp_path / "out"), tmp_path / "copy"
    sizes = []
    for until in (0, 1, 3, None):
        expanded(url, source, until)
        done = export(url, str(place), format)
        sizes.append(done.rows)
        assert done.new_rows == done.rows - ([0, *sizes][-2])
    assert sizes[0] == 0 < sizes[1] < sizes[2] < sizes[3] == 48
    assert export(url, str(place), format).new_parts == 0
    export(made.storage.url, str(tmp_path / "at-once"), format)
    grown, at_once = (unnamed(files(tmp_path / name), tmp_path / name) for name in ("copy", "at-once"))
    assert {name for name in grown if grown[name] != at_once.get(name)} == set() == at_once.keys() - grown.keys()


@ALL
def test_files_that_are_there_are_not_touched_again(made: Run, tmp_path: Path, format: str) -> None:
    export(made.storage.url, str(tmp_path / "copy"), format)
    replaced = {layout.CARD, "index.json", "classes.json", "train/metadata.parquet"}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    export(made.storage.url, str(tmp_path / "copy"), format)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert {str(path.relative_to(tmp_path / "copy")) for path in after if after[path] != before.get(path)} <= replaced


@ALL
def test_a_bucket_gets_the_bytes_of_a_disk(made: Run, s3_url: str, tmp_path: Path, format: str) -> None:
    url, place = f"{s3_url}/copy-{format}", tmp_path / "copy"
    for destination in (url, str(place)):
        export(made.storage.url, destination, format, include_real=True)
    bucket = Storage(url)
    found = {name: bucket.read(name) for name, _ in bucket.find("") if not name.startswith(layout.OWN)}
    expected = files(place)
    assert found.keys() == expected.keys()
    assert {name for name in found if name != layout.CARD and found[name] != expected[name]} == set()
    again = export(made.storage.url, url, format, include_real=True)
    assert (again.new_parts, again.rows) == (0, 72)


# --- killed


@ALL
def test_an_export_that_dies_anywhere_is_finished_by_the_next(
    made: Run, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(made.storage.url, str(tmp_path / "whole"), format)
    expected = unnamed(files(tmp_path / "whole"), tmp_path / "whole")
    put_once, left = Storage.put_once, [0]

    def dying(self: Storage, name: str, data: bytes) -> bool:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return put_once(self, name, data)

    monkeypatch.setattr(parts, "_WRITERS", 1)
    place = tmp_path / "copy"
    for number in range(0, 400, 7):
        left[0] = number
        monkeypatch.setattr(Storage, "put_once", dying)
        try:
            export(made.storage.url, str(place), format)
        except KeyboardInterrupt:
            seen = files(place)
            index = json.loads(seen.get("index.json", b'{"shards": []}'))["shards"]
            assert all(shard["raw_data"]["basename"] in seen for shard in index)
            assert all(seen[name] == expected[name] for name in seen if name.endswith((".tar", ".mds", ".png")))
        else:
            break
        finally:
            monkeypatch.setattr(Storage, "put_once", put_once)
    assert unnamed(files(place), place) == expected


def test_what_a_dead_export_was_writing_is_swept_and_what_a_live_one_writes_is_not(made: Run, tmp_path: Path) -> None:
    export(made.storage.url, str(tmp_path), "webdataset")
    old, young = (tmp_path / "data" / f"{TEMPORARY}{name}" for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    export(made.storage.url, str(tmp_path), "webdataset")
    assert (old.exists(), young.exists()) == (False, True)


# --- refused


def test_what_is_not_this_copy_is_refused(made: Run, source: Path, tmp_path: Path) -> None:
    url, place = made.storage.url, str(tmp_path / "copy")
    export(url, place, "webdataset")
    other_settings: list[tuple[dict[str, Any], str]] = [
        ({"encoding": "webp"}, r"encoding: 'png' there, 'webp' now"),
        ({"include_real": True}, "include_real: False there, True now"),
    ]
    for options, said in other_settings:
        with pytest.raises(OutputError, match=said):
            export(url, place, "webdataset", **options)
    with pytest.raises(OutputError, match="format: 'webdataset' there, 'mds' now"):
        export(url, place, "mds")
    other = expanded(str(tmp_path / "other"), source, expansion__seed=1)
    with pytest.raises(OutputError, match="a copy of another data set"):
        export(other.storage.url, place, "webdataset")
    with pytest.raises(OutputError, match="holds something else"):
        export(url, other.storage.url, "webdataset")
    with pytest.raises(ConfigError, match="is the data set itself"):
        export(url, url, "webdataset")
    with pytest.raises(ConfigError, match="there are parquet, webdataset, mds, imagefolder"):
        export(url, str(tmp_path / "new"), "tar")
    with pytest.raises(ConfigError, match="png is lossless and has none"):
        export(url, str(tmp_path / "new"), "mds", quality=80)
    with pytest.raises(OutputError, match="no data set of diffii"):
        export(str(tmp_path / "nowhere"), str(tmp_path / "new"), "mds")


def test_a_damaged_shard_and_a_changed_photo_are_named(made: Run, source: Path, tmp_path: Path) -> None:
    url = shutil.copytree(made.storage.url, tmp_path / "out")
    shard = url / layout.shard(1)
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(OutputError, match=r"train-00001\.parquet is missing or damaged"):
        export(str(url), str(tmp_path / "copy"), "mds")
    other = real_images(tmp_path / "source", shots=3)
    with pytest.raises(SourceError, match="has changed since the run began"):
        export(made.storage.url, str(tmp_path / "real"), "mds", include_real=True, source=str(other))


# --- images


@pytest.mark.parametrize(
    ("encoding", "quality", "kind"), [("webp", None, "WEBP"), ("webp", 80, "WEBP"), ("jpeg", None, "JPEG")]
)
def test_images_are_encoded_anew_and_marked(
    made: Run, tmp_path: Path, encoding: str, quality: int | None, kind: str
) -> None:
    export(made.storage.url, str(tmp_path), "parquet", encoding=encoding, quality=quality, include_real=True)
    rows = [row for path in sorted(tmp_path.glob("*/*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert len(rows) == 72
    for row in rows:
        with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
            assert image.format == kind and row["image"]["path"].endswith({"WEBP": ".webp", "JPEG": ".jpg"}[kind])
            said = (
                [element.text for element in ElementTree.fromstring(image.info["xmp"].strip(b"\0")).iter()]
                if ("xmp" in image.info)
                else []
            )
            assert (DIGITAL_SOURCE_TYPE in said) == row["is_synthetic"]
            if row["is_synthetic"]:
                same = np.array_equal(np.asarray(image), pixels(row["sample_id"]))
                assert same == (encoding == "webp" and quality is None)


def test_a_run_without_marks_is_copied_without(source: Path, tmp_path: Path) -> None:
    run = expanded(str(tmp_path / "out"), source, output__mark=False)
    export(run.storage.url, str(tmp_path / "copy"), "parquet", encoding="webp")
    rows = [row for path in sorted((tmp_path / "copy").glob("*/*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert rows and not any(DIGITAL_SOURCE_TYPE.encode() in row["image"]["bytes"] for row in rows)


def test_images_that_have_the_encoding_keep_their_bytes(made: Run, source: Path, tmp_path: Path) -> None:
    export(made.storage.url, str(tmp_path), "parquet", include_real=True)
    for number in range(len(made.history.shards)):
        assert (tmp_path / layout.shard(number)).read_bytes() == made.storage.read(layout.shard(number))
    photos = {row["image"]["bytes"] for row in pq.read_table(source / "train.parquet").to_pylist()}
    kept = [row["image"]["bytes"] for p in tmp_path.glob("real/*") for row in pq.read_table(p).to_pylist()]
    assert len(kept) == 24 and set(kept) == photos


# --- names


def test_a_thousand_classes_have_a_thousand_folders() -> None:
    names = [
        *CLASSES,
        *(f"class {k}" for k in range(1000)),
        *(f"Class {k}" for k in range(9)),
        *("y" * k for k in range(1, 300)),
    ]
    found = safe_names(names)
    assert len({name.lower() for name in found}) == len(names)
    assert all(0 < len(name.encode()) < 200 and not set('/\\:*?"<>|\0') & set(name) for name in found)
    assert not [name for name in found if name.startswith(".") or name.endswith((".", " "))]
    assert safe_names(["Bag", "Ankle boot", "été"]) == ["Bag", "Ankle boot", "été"]
    assert safe_names(names) == found


def test_many_classes_survive_every_format(tmp_path: Path) -> None:
    names = [f"{name} {k}" for k in range(100) for name in ("a/b", ".", "été", "16.4", "x|y", "-", "#", "%", "é", "&")]
    source = real_images(tmp_path / "source", names, shots=1)
    run = expanded(str(tmp_path / "out"), source, output__shard_rows=500, commit__chunk_size=64, expansion__factor=1)
    assert run.source.classes == tuple(names)
    for format in FORMATS:
        assert export(run.storage.url, str(tmp_path / format), format).rows == 1000
    table = pq.read_table(tmp_path / "imagefolder" / "train" / "metadata.parquet")
    folders = json.loads((tmp_path / "imagefolder" / "classes.json").read_text())
    assert list(folders.values()) == names
    for row in table.to_pylist():
        assert folders[row["file_name"].partition("/")[0]] == row["class_name"] == names[row["label"]]
        assert (tmp_path / "imagefolder" / "train" / row["file_name"]).is_file()


# --- along with a run


def at_once(order: parts.PartOrder) -> Future[dict[str, Any]]:
    future: Future[dict[str, Any]] = Future()
    future.set_result(make_part(order))
    return future


def test_copies_follow_a_run_and_its_own_files_know_nothing_of_them(
    made: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "out")
    more = {"output__format": ("webdataset", "mds"), "output__include_real": True}
    run = a_run(url, source, **more)
    begin(run)
    follower = Along(run, at_once)
    follower.begin()
    grown = []

    def committed(entry: Any) -> None:
        follower.committed(entry)
        names = {path.name for path in (tmp_path / "out" / "mds").glob("shard.*")}
        index = json.loads((tmp_path / "out" / "mds" / "index.json").read_text())["shards"]
        grown.append(len(index))
        assert {
            shard["raw_data"]["basename"] for shard in index if "real" not in shard["raw_data"]["basename"]
        } <= names

    monkeypatch.setattr(along, "_GROWN", 1.0)
    expanded(url, source, run=run, follow=committed)
    done = follower.finish()
    assert [copy.rows for copy in done] == [72, 72] and grown == sorted(grown) and len(set(grown)) > 2
    own = verify(url)
    assert (own.ok, own.orphans, own.digest, own.shards_digest) == (
        True, [], verify(made.storage.url).digest, verify(made.storage.url).shards_digest
    )  # fmt: skip
    for format in ("webdataset", "mds"):
        export(made.storage.url, str(tmp_path / format), format, include_real=True)
        beside, alone = files(tmp_path / "out" / format), files(tmp_path / format)
        assert {name for name in alone if name != layout.CARD and beside[name] != alone[name]} == set()
    assert sum(pq.read_metadata(path).num_rows for path in (tmp_path / "out" / "real").glob("*.parquet")) == 24
    assert "real/train-*.parquet" in (tmp_path / "out" / layout.CARD).read_text()


def test_a_format_that_is_asked_for_late_is_caught_up_with(made: Run, source: Path, tmp_path: Path) -> None:
    url = str(shutil.copytree(made.storage.url, tmp_path / "out"))
    for _ in range(2):
        (copy,) = catch_up(a_run(url, source, output__format="imagefolder"))
        assert (copy.rows, copy.parts) == (48, len(made.history.shards))
    assert verify(url).ok and catch_up(a_run(url, source)) == []
