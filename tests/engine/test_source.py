"""A user's images: found, told apart by content, and never lost without a word."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffii.errors import ConfigError, SourceError
from diffii.hashing import sha256
from diffii.sources import Splits, opener
from engine.scan import Reading, read_source
from engine.settings import from_flat
from engine.source import Source, iter_bytes

pytest_plugins = ["tests.s3"]


def png(seed: int, kind: str = "PNG", size: tuple[int, int] = (5, 6)) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*reversed(size), 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write(root: Path, files: dict[str, bytes]) -> str:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return str(root)


def reasons(source: Source) -> dict[str, str]:
    return {skip.where: skip.reason for skip in source.skipped}


def places(source: Source) -> list[tuple[str, str]]:
    return sorted((source.classes[image.label], image.where) for image in source.images)


def refused(url: str) -> str:
    with pytest.raises(SourceError) as caught:
        read_source(url)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- folders


def test_class_folders_are_classes(tmp_path: Path) -> None:
    url = write(tmp_path, {"dog/1.png": png(1), "cat/1.png": png(2), "cat/2.JPG": png(3, "JPEG")})
    source = read_source(url)
    assert source.classes == ("cat", "dog") and source.skipped == ()
    assert places(source) == [("cat", "cat/1.png"), ("cat", "cat/2.JPG"), ("dog", "dog/1.png")]
    assert {image.where: image.sha256 for image in source.images}["dog/1.png"] == sha256(png(1))
    for images in source.by_class:
        assert list(images) == sorted(images, key=lambda image: image.sha256)
    assert [len(images) for images in source.by_class] == [2, 1]


def test_only_the_training_split_is_expanded(tmp_path: Path) -> None:
    files = {f"{split}/cat/{k}.png": png(k) for k, split in enumerate(("train", "test", "val"))}
    source = read_source(write(tmp_path, files))
    assert places(source) == [("cat", "train/cat/0.png")] and source.skipped == ()
    assert list(iter_bytes(source, source.images)) == [png(0)]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert read_source(write(tmp_path, {"train/1.png": png(1), "plane/1.png": png(2)})).classes == ("plane", "train")


def test_names_may_hold_dots_spaces_and_accents(tmp_path: Path) -> None:
    classes = ["bugatti_veyron_16.4", "great horned owl", "v1.jpg", "été"]
    files = {f"{name}/a.{k}.jpg": png(10 * n + k, "JPEG") for n, name in enumerate(classes) for k in (1, 2)}
    source = read_source(
        write(tmp_path, files | {"v1.jpg/notes": b"no image", "great horned owl/a.4/x y.png": png(99)})
    )
    assert list(source.classes) == sorted(classes) and source.skipped == ()
    assert [where for _, where in places(source)] == sorted([*files, "great horned owl/a.4/x y.png"])
    assert sorted(map(sha256, iter_bytes(source, source.images))) == sorted(map(sha256, [*files.values(), png(99)]))


def test_hidden_files_and_other_files_are_not_images(tmp_path: Path) -> None:
    others = ["cat/.1.png", "cat/._1.png", "cat/.cache/2.png", "cat/notes.txt", "cat/Thumbs.db", ".git/3.png"]
    others += ["__MACOSX/cat/4.png", "readme.md"]
    source = read_source(write(tmp_path, {"cat/1.png": png(1)} | {name: png(50) for name in others}))
    assert source.classes == ("cat",) and places(source) == [("cat", "cat/1.png")] and source.skipped == ()


def test_a_link_to_a_class_folder_is_followed(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", {"1.png": png(1)})
    url = write(tmp_path / "set", {"dog/1.png": png(2)})
    (tmp_path / "set" / "cat").symlink_to(tmp_path / "elsewhere")
    source = read_source(url)
    assert places(source) == [("cat", "cat/1.png"), ("dog", "dog/1.png")]
    assert len(list(iter_bytes(source, source.images))) == 2


def test_a_folder_on_s3_is_read_alike(s3_url: str, s3_client: Any, tmp_path: Path) -> None:
    files = {"cat/a.1.png": png(1), "cat/a.2.png": png(2), "été 1.5/x y.png": png(3), "été 1.5/bad.png": b"<html>"}
    bucket = s3_url.split("/")[2]
    # The console of an object store leaves empty objects where it made folders.
    for name, data in ({"": b"", "cat/": b""} | files).items():
        s3_client.put_object(Bucket=bucket, Key=f"set/{name}", Body=data)
    there, here = read_source(s3_url), read_source(write(tmp_path, files))
    assert there.classes == here.classes == ("cat", "été 1.5")
    assert (there.digest, there.skipped, places(there)) == (here.digest, here.skipped, places(here))
    assert list(iter_bytes(there, there.images)) == list(iter_bytes(here, here.images))


# --- splits


def test_a_split_kept_apart_is_never_expanded_nor_a_copy_of_it(tmp_path: Path) -> None:
    files = {"train/cat/1.png": png(1), "train/cat/2.png": png(2), "train/dog/3.png": png(3)}
    files |= {"check/cat/9.png": png(2), "check/dog/8.png": png(8), "check/dog/bad.png": b"?"}
    source = read_source(write(tmp_path, files), Reading(splits=Splits(without="check")))
    assert places(source) == [("cat", "train/cat/1.png"), ("dog", "train/dog/3.png")]
    assert reasons(source) == {"train/cat/2.png": "held out: the same image as check/cat/9.png"}
    held = read_source(source.url, Reading(splits=Splits("check")))
    assert places(held) == [("cat", "check/cat/9.png"), ("dog", "check/dog/8.png")]


def test_without_a_training_split_everything_else_is_expanded(tmp_path: Path) -> None:
    files = {f"{split}/cat/{k}.png": png(k) for k, split in enumerate(("spring", "summer", "winter"))}
    url = write(tmp_path, files | {"notes/readme.txt": b""})
    assert places(read_source(url, Reading(splits=Splits(without="winter")))) == [
        ("cat", "spring/cat/0.png"),
        ("cat", "summer/cat/1.png"),
    ]
    with pytest.raises(SourceError, match="has no split 'autumn'; it has spring, summer, winter"):
        read_source(url, Reading(splits=Splits(without="autumn")))
    with pytest.raises(SourceError, match="has no split 'dev'; it has none that it names"):
        read_source(write(tmp_path / "plain", {"cat/1.png": png(1)}), Reading(splits=Splits("dev")))


def test_a_parquet_split_kept_apart(tmp_path: Path) -> None:
    for split, seeds in (("train", [1, 2]), ("validation", [2, 3])):
        table = pa.table({"image": [png(seed) for seed in seeds], "label": ["a"] * 2})
        pq.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet")
    source = read_source(str(tmp_path), Reading(splits=Splits(without="validation")))
    assert [image.sha256 for image in source.images] == [sha256(png(1))]
    assert "validation-00000-of-00001.parquet#0" in source.skipped[0].reason


def test_one_split_is_not_both() -> None:
    with pytest.raises(ConfigError, match=r"source\.split=x: is source\.holdout_split too"):
        from_flat({"source.split": "x", "source.holdout_split": "x"})


# --- what cannot be used


def test_an_unreadable_image_is_named_and_others_survive(tmp_path: Path) -> None:
    files = {"cat/good.png": png(1), "cat/empty.png": b"", "cat/page.jpg": b"<html>", "dog/cut.png": png(2)[:60]}
    source = read_source(write(tmp_path, files | {"dog/good.png": png(3)}))
    assert places(source) == [("cat", "cat/good.png"), ("dog", "dog/good.png")]
    assert list(reasons(source)) == ["cat/empty.png", "cat/page.jpg", "dog/cut.png"]
    assert reasons(source)["cat/empty.png"] == "the file is empty"
    assert "HTML" in reasons(source)["cat/page.jpg"] and "damaged" in reasons(source)["dog/cut.png"]


def test_of_a_folder_with_one_percent_broken_exactly_those_are_named(tmp_path: Path) -> None:
    files = {f"c{number % 3}/{number:03d}.jpg": png(number, "JPEG") for number in range(300)}
    broken = {
        "c0/150.jpg": b"<!DOCTYPE html><h1>404</h1>",
        "c1/151.jpg": png(151, "JPEG")[:200],
        "c2/152.jpg": b"\0" * 64,
    }
    source = read_source(write(tmp_path, files | broken))
    assert set(reasons(source)) == set(broken) and len(source.images) == 297
    assert {sha256(data) for name, data in files.items() if name not in broken} == {i.sha256 for i in source.images}


def test_an_animation_is_used_and_said_so(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    source = read_source(write(tmp_path, {"cat/1.png": png(1), "cat/2.gif": buffer.getvalue()}))
    assert len(source.images) == 2 and source.skipped == ()
    assert [(note.where, note.reason) for note in source.notes] == [
        ("cat/2.gif", "of several frames or pages the first is used")
    ]


def test_limits_are_the_readers(tmp_path: Path) -> None:
    url = write(tmp_path, {"cat/small.png": png(1), "cat/large.png": png(2, size=(40, 30))})
    config = from_flat({"source.min_edge": 6})
    assert reasons(read_source(url, Reading.of(config.source))) == {
        "cat/small.png": "5x6 pixels: the shorter edge is below 6"
    }
    config = from_flat({"source.max_pixels": 1000})
    assert reasons(read_source(url, Reading.of(config.source))) == {
        "cat/large.png": "40x30 pixels are more than the limit of 1000"
    }


def test_a_name_that_is_no_text_is_shown(tmp_path: Path) -> None:
    url = write(tmp_path, {"cat/1.png": png(1), "cat/\udcff.png": png(2)})
    source = read_source(url)
    assert reasons(source) == {"cat/\\udcff.png": "its name is not UTF-8; rename it"}
    assert Source.from_parquet(url, source.classes, source.to_parquet()).images == source.images
    write(tmp_path, {"d\udcff/1.png": png(3)})
    assert r"the class d\udcff has a name that is not UTF-8" in refused(url)


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    url = write(tmp_path, {"cat/1.png": png(1)})
    (tmp_path / "cat" / "2.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "cat" / "3.png").symlink_to(tmp_path / "cat" / "3.png")
    found = reasons(read_source(url))
    assert found["cat/2.png"].startswith("cannot be read: ") and found["cat/3.png"].startswith("cannot be read: ")


def test_a_duplicate_within_a_class_counts_once(tmp_path: Path) -> None:
    source = read_source(write(tmp_path, {"cat/a.png": png(1), "cat/b.png": png(1), "cat/c.png": png(2)}))
    assert places(source) == [("cat", "cat/a.png"), ("cat", "cat/c.png")]
    assert reasons(source) == {"cat/b.png": "the same image as cat/a.png"}


def test_an_image_under_two_labels_is_used_under_none(tmp_path: Path) -> None:
    files = {"cat/a.png": png(1), "dog/b.png": png(1), "owl/c.png": png(1), "cat/x.png": png(2), "dog/y.png": png(3)}
    source = read_source(write(tmp_path, files))
    assert places(source) == [("cat", "cat/x.png"), ("dog", "dog/y.png")]
    same = "one image under different labels: cat/a.png, dog/b.png, owl/c.png"
    assert reasons(source) == {
        "cat/a.png": same,
        "dog/b.png": same,
        "owl/c.png": same,
        "owl/": "no usable image is left in this class",
    }


def test_an_empty_class_keeps_its_place(tmp_path: Path) -> None:
    url = write(tmp_path, {"ant/readme.txt": b"", "cat/1.png": png(1), "dog/bad.png": b"?", "owl/1.png": png(2)})
    (tmp_path / "bee").mkdir()
    source = read_source(url)
    assert source.classes == ("ant", "bee", "cat", "dog", "owl")
    assert [image.label for image in source.images] == [2, 4]
    assert reasons(source)["ant/"] == reasons(source)["bee/"] == "the class folder holds no images"
    assert reasons(source)["dog/"] == "no usable image is left in this class"
    assert reasons(source)["dog/bad.png"] == "not an image" and len(source.skipped) == 4


def test_a_source_that_is_none_says_why(tmp_path: Path) -> None:
    assert "source.url is empty" in refused("")
    assert refused(str(tmp_path / "gone")) == f"{tmp_path / 'gone'}: there is nothing there"
    assert "holds no class folders" in refused(str(tmp_path))
    assert "holds no class folders" in refused(write(tmp_path / "flat", {"1.png": png(1)}))
    assert "is a single file" in refused(write(tmp_path / "one", {"1.png": png(1)}) + "/1.png")
    assert "cat/: the class folder holds no images" in refused(write(tmp_path / "text", {"cat/a.txt": b""}))
    assert "cat/1.png: not an image" in refused(write(tmp_path / "bad", {"cat/1.png": b"?"}))
    assert "nosuch" in refused("nosuch://here")


# --- identity


def _many(root: Path, name: str) -> str:
    return write(root, {f"c{k % 3}/{name.format(k)}": png(k) for k in range(30)})


def test_names_and_threads_do_not_matter(tmp_path: Path) -> None:
    first = read_source(_many(tmp_path / "a", "{:02d}.png"), threads=1)
    for threads, names in ((8, "{:02d}.png"), (3, "x{:x}.1.png"), (20, "deep/{:x}/image.png")):
        other = read_source(_many(tmp_path / str(threads), names), threads=threads)
        assert other.digest == first.digest
        assert [image.sha256 for image in other.images] == [image.sha256 for image in first.images]


def test_content_labels_and_class_names_matter(tmp_path: Path) -> None:
    base = {"cat/1.png": png(1), "dog/2.png": png(2), "dog/3.png": png(3)}
    digests = {read_source(write(tmp_path / "base", base)).digest}
    digests.add(read_source(write(tmp_path / "content", base | {"dog/3.png": png(4)})).digest)
    digests.add(read_source(write(tmp_path / "fewer", {"cat/1.png": png(1), "dog/2.png": png(2)})).digest)
    digests.add(read_source(write(tmp_path / "name", {k.replace("dog", "hound"): v for k, v in base.items()})).digest)
    digests.add(
        read_source(write(tmp_path / "label", {"cat/1.png": png(1), "cat/2.png": png(2), "dog/3.png": png(3)})).digest
    )
    assert len(digests) == 5


def test_the_manifest_brings_the_source_back(tmp_path: Path) -> None:
    source = read_source(_many(tmp_path, "{:02d}.png"))
    again = Source.from_parquet(source.url, source.classes, source.to_parquet())
    assert again == source and again.digest == source.digest and again.by_class == source.by_class
    assert again.to_parquet() == source.to_parquet()


def test_a_change_after_the_scan_is_told(tmp_path: Path) -> None:
    source = read_source(write(tmp_path, {"cat/1.png": png(1)}))
    write(tmp_path, {"cat/1.png": png(2)})
    with pytest.raises(SourceError, match=r"cat/1.png has changed since the run began"):
        list(iter_bytes(source, source.images))
    shutil.rmtree(tmp_path / "cat")
    with pytest.raises(SourceError, match=r"cat/1.png cannot be read any more"):
        list(iter_bytes(source, source.images))


# --- Parquet


def _table(root: Path, images: list[bytes], labels: list[str | None]) -> str:
    pq.write_table(pa.table({"image": images, "label": labels}), root / "train-0.parquet")
    return str(root)


def test_parquet_and_the_same_folder_are_one_source(tmp_path: Path) -> None:
    here = read_source(write(tmp_path / "folder", {"cat/1.png": png(1), "dog/2.png": png(2)}))
    source = read_source(_table(tmp_path, [png(2), png(1)], ["dog", "cat"]))
    assert source.digest == here.digest
    assert places(source) == [("cat", "train-0.parquet#1"), ("dog", "train-0.parquet#0")]
    assert list(iter_bytes(source, source.images)) == [png(1), png(2)]
    read = opener(source.url)
    assert [sha256(read(image.where)) for image in source.images] == [image.sha256 for image in source.images]


def test_rows_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    images = [png(1), png(1), png(2), png(3), b"?", png(3)]
    source = read_source(_table(tmp_path, images, ["a", "a", None, "a", "b", "b"]))
    different = "one image under different labels: train-0.parquet#3, train-0.parquet#5"
    assert places(source) == [("a", "train-0.parquet#0")]
    assert reasons(source) == {
        "train-0.parquet#1": "the same image as train-0.parquet#0",
        "train-0.parquet#2": "the row has no label",
        "train-0.parquet#3": different,
        "train-0.parquet#4": "not an image",
        "train-0.parquet#5": different,
        "b/": "no usable image is left in this class",
    }


def test_parquet_that_changed_or_is_damaged_is_told(tmp_path: Path) -> None:
    source = read_source(_table(tmp_path, [png(1), png(2)], ["a", "a"]))
    for images in ([png(1), png(3)], [png(1)]):
        _table(tmp_path, images, ["a"] * len(images))
        with pytest.raises(SourceError, match=r"train-0.parquet.* (changed|any more)"):
            list(iter_bytes(source, source.images))
    data = (tmp_path / "train-0.parquet").read_bytes()
    (tmp_path / "train-0.parquet").write_bytes(data[:-20])
    assert "train-0.parquet is not a whole Parquet file" in refused(str(tmp_path))
    assert "train-0.parquet is not a whole Parquet file" in refused(str(tmp_path / "train-0.parquet"))


def test_parquet_without_images_names_its_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"picture": [b""], "label": ["a"]}), tmp_path / "x.parquet")
    assert refused(str(tmp_path)).endswith("x.parquet has no column 'image'; its columns are picture, label")


def test_images_beside_the_class_folders_are_named(tmp_path: Path) -> None:
    source = read_source(write(tmp_path, {"bird/a.png": png(1), "lost.png": png(2)}))
    assert reasons(source) == {"lost.png": "it is beside the class folders, so it has no class"}
