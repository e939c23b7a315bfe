"""Lists of paths and labels: what the columns may be called, and that a list leads nowhere it was not sent."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image

from diffii.errors import SourceError
from diffii.sources import Splits, open_source, opener
from engine.scan import Reading, read_source
from engine.source import Skipped
from tests.diffii.sources.layouts import folder, png

pytest_plugins = ["tests.s3"]


def table(root: Path, text: str, name: str = "list.csv", images: int = 4) -> str:
    root.mkdir(parents=True, exist_ok=True)
    for number in range(images):
        (root / f"{number}.png").write_bytes(png(number))
    (root / name).write_text(text, encoding="utf-8")
    return str(root / name)


def labels(url: str) -> dict[str, str]:
    found = open_source(url).listing()
    return {entry.where: found.classes[entry.label] for entry in found.entries}


@pytest.mark.parametrize(
    "text",
    [
        "path,label\n0.png,cat\n1.png,dog\n",
        "\ufefffile_name;class_name\n0.png;cat\n1.png;dog\n",
        'label,image\n"cat",./0.png\n"dog","x/../1.png"\n',
        "filepath,label,class_name\n0.png,0,cat\n1.png,1,dog\n",
    ],
)
def test_columns_go_by_their_usual_names(tmp_path: Path, text: str) -> None:
    assert labels(table(tmp_path, text)) == {"0.png": "cat", "1.png": "dog"}


def test_captions_and_contexts_are_taken_along(tmp_path: Path) -> None:
    url = table(tmp_path, 'path,label,caption,context\n0.png,a,"a cat, sitting",on a mat\n1.png,b,,\n')
    images = read_source(url).images
    assert [(image.caption, image.context) for image in images] == [("a cat, sitting", "on a mat"), ("", "")]


def test_a_column_tells_splits(tmp_path: Path) -> None:
    url = table(tmp_path, "path,label,split\n0.png,a,train\n1.png,a,test\n2.png,b,train\n3.png,b,val\n")
    assert list(labels(url)) == ["0.png", "2.png"]
    found = open_source(url).listing(Splits(without="train"))
    assert [entry.where for entry in found.entries] == ["1.png", "3.png"]
    with pytest.raises(SourceError, match="has no split 'dev'; it has test, train, val"):
        open_source(url).listing(Splits("dev"))


def test_rows_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    url = table(tmp_path, "path,label\n0.png,a\n1.png,\n,a\ngone.png,a\nlist.csv,a\n")
    source = read_source(url)
    assert [image.where for image in source.images] == ["0.png"]
    reasons = {skip.where: skip.reason for skip in source.skipped}
    assert set(reasons) == {"1.png", "list.csv#2", "gone.png", "list.csv"}
    assert reasons["1.png"] == "the row has no label" and reasons["list.csv#2"] == "the row names no file"
    assert reasons["gone.png"].startswith("cannot be read: ") and reasons["list.csv"] == "not an image"


def test_a_list_leads_nowhere_it_was_not_sent(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(9))
    outside = ["../secret.png", "x/../../secret.png", str(tmp_path / "secret.png"), f"file://{tmp_path}/secret.png"]
    url = table(tmp_path / "set", "path,label\n0.png,a\n" + "".join(f"{path},a\n" for path in outside))
    source = read_source(url)
    assert [image.where for image in source.images] == ["0.png"]
    assert len(source.skipped) == 4
    assert all("source.images=FOLDER_OR_URL" in skip.reason for skip in source.skipped)


def test_images_may_lie_elsewhere_if_the_user_says_so(tmp_path: Path) -> None:
    url = table(
        tmp_path / "lists", f"path,label\n0.png,a\n{tmp_path}/images/1.png,a\n../x.png,a\n/etc/x.png,a\n", images=0
    )
    table(tmp_path / "images", "")
    source = read_source(url, Reading(images=str(tmp_path / "images")))
    places = {f"{tmp_path}/images/0.png", f"{tmp_path}/images/1.png"}
    assert {image.where for image in source.images} == places
    assert [skip.where for skip in source.skipped] == ["list.csv#2", "list.csv#3"]
    read = opener(source.url)
    assert {read(place) for place in places} == {png(0), png(1)}


def test_a_folder_with_metadata_alone_is_a_list(tmp_path: Path) -> None:
    url = table(
        tmp_path, '{"file_name": "0.png", "label": "a"}\n{"file_name": "1.png", "label": "b"}\n', "metadata.jsonl"
    )
    assert labels(str(Path(url).parent)) == {"0.png": "a", "1.png": "b"}


def test_metadata_beside_class_folders_brings_captions(tmp_path: Path) -> None:
    url = folder(tmp_path, ["a", "b"], [(png(0), 0), (png(1), 1)])
    before = read_source(url).digest
    (tmp_path / "metadata.csv").write_text("file_name,text\na/0.png,a thing on a table\n")
    source = read_source(url)
    assert [image.caption for image in source.images] == ["a thing on a table", ""] and source.digest == before
    (tmp_path / "metadata.csv").write_text("file_name,text\na/0.png,a thing\nb/7.png,another\n")
    (skip,) = read_source(url).skipped
    assert skip == Skipped("metadata.csv", "1 of its rows name no image in a class folder: b/7.png, ...")
    (tmp_path / "metadata.csv").write_bytes(b"file_name,text\n\xff\xfe")
    assert read_source(url).digest == before
    assert read_source(url).skipped[0].where == "metadata.csv"


def test_captions_are_found_however_their_accents_are_spelled(tmp_path: Path) -> None:
    """A Mac's file system takes é apart, and what writes tables does not."""
    url = folder(tmp_path, ["a"], [(png(0), 0)])
    apart, whole = (unicodedata.normalize(form, "été.png") for form in ("NFD", "NFC"))
    assert apart != whole
    (tmp_path / "a" / "0.png").rename(tmp_path / "a" / apart)
    (tmp_path / "metadata.csv").write_text(f"file_name,text\na/{whole},in the sun\n", encoding="utf-8")
    source = read_source(url)
    assert [image.caption for image in source.images] == ["in the sun"] and source.skipped == ()


def test_what_looks_like_images_and_is_not_read_is_named(tmp_path: Path) -> None:
    url = folder(tmp_path / "set", ["a", "b"], [(png(0), 0), (png(1), 1)])
    root = tmp_path / "set"
    (root / "a" / "phone.HEIC").write_bytes(b"x")
    (root / "a" / "notes.txt").write_text("of no interest")
    folder(tmp_path / "more", ["c"], [(png(2), 0)])
    (root / "b" / "more").symlink_to(tmp_path / "more" / "c")
    folder(root, ["_c"], [(png(3), 0)])
    (root / "__MACOSX").mkdir()
    source = read_source(url)
    assert source.classes == ("a", "b") and len(source.images) == 2
    assert {skip.where: skip.reason for skip in source.skipped} == {
        "a/phone.HEIC": ".heic files are not read; convert it to PNG or JPEG",
        "b/more": "a link to a folder is not followed inside a class folder",
        "_c/": "no class begins with _; rename it",
    }


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "jp2"])
def test_images_by_less_usual_names_are_read(tmp_path: Path, suffix: str) -> None:
    url = folder(tmp_path, ["a"], [(png(0), 0)])
    picture = Image.open(io.BytesIO(png(1))).convert("RGB")
    picture.save(tmp_path / "a" / f"1.{suffix}", "JPEG2000" if suffix == "jp2" else "JPEG")
    source = read_source(url)
    assert len(source.images) == 2 and source.skipped == ()


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    """ImageNet has two cranes, and concepts know classes by their names."""
    with pytest.raises(SourceError, match="labels 0 and 1 are both called 'crane'; give each its own name"):
        read_source(table(tmp_path, "path,label,class_name\n0.png,0,crane\n1.png,1,crane\n"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"a,b\n1,2\n", "list.csv has no column 'file_name'; its columns are a, b"),
        (b"path,size\n0.png,2\n", "list.csv has no column 'label'"),
        (b"path,label\n0.png,\xff\xfe\n", "list.csv is not UTF-8 text"),
        (b'path,label\n"0.png,a\n', "list.csv is no table that can be read"),
        (b"", "holds no usable image"),
    ],
)
def test_what_is_no_list_is_told(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "list.csv").write_bytes(data)
    with pytest.raises(SourceError, match=said) as caught:
        read_source(str(tmp_path / "list.csv"))
    assert "\n" not in str(caught.value)


def test_a_list_on_s3_names_images_there(s3_url: str, s3_client: Any, tmp_path: Path) -> None:
    here = read_source(table(tmp_path, "path,label\n0.png,a\n1.png,été\n"))
    bucket = s3_url.split("/")[2]
    for file in tmp_path.iterdir():
        s3_client.put_object(Bucket=bucket, Key=f"set/lists/{file.name}", Body=file.read_bytes())
    there = read_source(f"{s3_url}/lists/list.csv")
    assert there.digest == here.digest
    s3_client.put_object(Bucket=bucket, Key="set/all.csv", Body=f"url,label\n{s3_url}/lists/0.png,a\n".encode())
    named = read_source(f"{s3_url}/all.csv", Reading(images=f"{s3_url}/lists"))
    assert [opener(named.url)(image.where) for image in named.images] == [png(0)]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server with index pages over the folder of the test."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_sources_on_a_web_server(web: str, tmp_path: Path) -> None:
    table(tmp_path / "lists", "path,label\n0.png,a\n1.png,été\n")
    assert read_source(f"{web}/lists/list.csv").digest == read_source(str(tmp_path / "lists" / "list.csv")).digest
    folder(tmp_path / "set", ["a", "été 1.5"], [(png(0), 0), (png(1), 1), (png(2), 1)])
    there, here = read_source(f"{web}/set"), read_source(str(tmp_path / "set"))
    assert (there.classes, there.digest) == (here.classes, here.digest)
    with pytest.raises(SourceError, match="there is nothing there"):
        read_source(f"{web}/gone")
