"""Tars: what belongs together, what is refused, what is damaged; and never a byte outside of the tar."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from diffii.dataset.storage import Storage
from diffii.errors import SourceError
from diffii.sources import open_source, opener
from diffii.sources.interface import Listing
from engine.scan import read_source
from tests.diffii.sources.layouts import png, tar

pytest_plugins = ["tests.s3"]


def written(root: Path, **tars: bytes) -> str:
    root.mkdir(parents=True, exist_ok=True)
    for name, data in tars.items():
        (root / f"{name}.tar").write_bytes(data)
    return str(root)


def sample(key: str, seed: int, label: str = "0") -> list[tuple[str, bytes]]:
    return [(f"{key}.cls", label.encode()), (f"{key}.png", png(seed))]


def listing(url: str) -> Listing:
    return open_source(url).listing()


def members(listing: Listing) -> list[str]:
    return [entry.where.partition("#")[2].rpartition("@")[0] for entry in listing.entries]


def archive(members: Sequence[tuple[tarfile.TarInfo, bytes]], kind: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as made:
        for member, data in members:
            member.size = len(data) if data else member.size
            made.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def plain(name: str, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), data


# --- samples


def test_a_key_ends_at_the_first_dot_of_the_name(tmp_path: Path) -> None:
    found = [("a.b/x.1.png", png(1)), ("a.b/x.cls", b"3"), ("a.b/y.cls", b"1"), ("a.b/y.PNG", png(2))]
    url = written(tmp_path, train=tar(found))
    assert members(listing(url)) == ["a.b/x.1.png", "a.b/y.PNG"]
    assert listing(url).classes == ("1", "3")
    read = opener(url)
    assert [read(entry.where) for entry in listing(url).entries] == [png(1), png(2)]


def test_captions_and_names_come_from_txt_and_json(tmp_path: Path) -> None:
    about = {"label": 1, "class_name": "été", "caption": "from json", "context": "in the snow"}
    other = {"class_name": "wren", "label": 0, "text": "a wren\n on  a branch"}
    found = [("0.json", json.dumps(about).encode()), ("0.png", png(1)), ("0.txt", b" a bird ")]
    found += [("1.json", json.dumps(other).encode()), ("1.png", png(2))]
    told = listing(written(tmp_path, train=tar(found)))
    assert told.classes == ("wren", "été")
    assert [(entry.label, entry.caption, entry.context) for entry in told.entries] == [
        (1, "a bird", "in the snow"),
        (0, "a wren on a branch", ""),
    ]


def test_a_class_that_no_sample_shows_keeps_its_place(tmp_path: Path) -> None:
    found = [("0.cls", b"4"), ("0.json", b'{"class_name": "e"}'), ("0.png", png(1))]
    assert listing(written(tmp_path, train=tar(found))).classes == ("0", "1", "2", "3", "e")


def test_an_index_with_two_names_is_refused(tmp_path: Path) -> None:
    found = [(f"{n}.{e}", d) for n in "01" for e, d in (("cls", b"0"), ("json", b'{"class_name": "%s"}' % n.encode()))]
    found = [*found[:2], ("0.png", png(1)), *found[2:], ("1.png", png(2))]
    with pytest.raises(SourceError, match="label 0 is called both '0' and '1'"):
        listing(written(tmp_path, train=tar(found)))


def test_an_index_without_bounds_is_refused(tmp_path: Path) -> None:
    found = [("0.cls", b"99999999999"), ("0.json", b'{"class_name": "a"}'), ("0.png", png(1))]
    with pytest.raises(SourceError, match="more than the limit of 1000000 classes"):
        listing(written(tmp_path, train=tar(found)))


def test_only_the_training_tars_are_read(tmp_path: Path) -> None:
    url = written(tmp_path, **{f"{split}-000": tar(sample("0", n)) for n, split in enumerate(("test", "train", "val"))})
    assert [entry.where.partition("#")[0] for entry in listing(url).entries] == ["train-000.tar"]


def test_an_archive_beside_class_folders_is_not_the_source(tmp_path: Path) -> None:
    url = written(tmp_path, birds=tar(sample("0", 1)))
    (tmp_path / "wren").mkdir()
    (tmp_path / "wren" / "1.png").write_bytes(png(2))
    assert [image.where for image in read_source(url).images] == ["wren/1.png"]


def test_samples_that_cannot_be_used_are_named_and_others_survive(tmp_path: Path) -> None:
    found = [*sample("good", 1), ("nolabel.png", png(2)), ("noimage.cls", b"0"), ("broken.cls", b"0")]
    found += [("broken.png", b"<html>"), ("brace.json", b"{"), ("brace.png", png(3)), ("list.json", b"[]")]
    found += [("list.png", png(4)), ("deep.json", b"[" * 100_000), ("deep.png", png(5))]
    found += [("long.cls", b"0" * (2**20 + 1)), ("long.png", png(6)), ("bytes.cls", b"\xff"), ("bytes.png", png(7))]
    source = read_source(written(tmp_path, train=tar(found)))
    assert len(source.images) == 1
    reasons = {skip.where.partition("#")[2].partition("@")[0]: skip.reason for skip in source.skipped}
    assert set(reasons) == {
        *("nolabel.png", "noimage", "broken.png", "brace.png", "list.png", "deep.png", "long.png", "bytes.png")
    }
    assert "no label" in reasons["nolabel.png"] and reasons["noimage"] == "the sample has no image"
    assert "HTML" in reasons["broken.png"] and reasons["brace.png"] == "its .json is no JSON" == reasons["deep.png"]
    assert "no JSON object" in reasons["list.png"] and "more than the limit" in reasons["long.png"]
    assert reasons["bytes.png"] == "its .cls is not UTF-8 text"


@pytest.mark.parametrize("single", [False, True])
def test_tars_on_s3_are_read_alike(s3_url: str, tmp_path: Path, single: bool) -> None:
    data = tar([*sample("0", 1), *sample("1", 2, "1")])
    here = read_source(written(tmp_path, **{"train-0": data}))
    Storage(s3_url).put_once("data/train-0.tar", data)
    url = f"{s3_url}/data/train-0.tar" if single else s3_url
    there = read_source(url)
    assert there.digest == here.digest
    assert [opener(url)(image.where) for image in there.images] == [
        opener(here.url)(image.where) for image in here.images
    ]


# --- hostile tars


def test_names_that_lead_out_and_what_is_no_file_are_refused(tmp_path: Path) -> None:
    bad = [
        (plain("../../etc/a.png", png(2)), "its name leads out of the tar"),
        (plain("/etc/b.png", png(3)), "its name leads out of the tar"),
        (plain("x/../../c.png", png(4)), "its name leads out of the tar"),
        (plain("C:\\d.png", png(5)), "its name leads out of the tar"),
        (special("e.png", tarfile.SYMTYPE, "/etc/passwd"), "it is a link, not a file"),
        (special("f.png", tarfile.LNKTYPE, "good.png"), "it is a link, not a file"),
        (special("g.png", tarfile.CHRTYPE), "it is a device, not a file"),
        (special("h.png", tarfile.FIFOTYPE), "it is a device, not a file"),
    ]
    good = [plain(name, data) for name, data in sample("good", 1)]
    folders = [special("folder", tarfile.DIRTYPE)]
    source = read_source(written(tmp_path / "set", train=archive([*good, *folders, *(member for member, _ in bad)])))
    assert [image.where.partition("@")[0] for image in source.images] == ["train.tar#good.png"]
    assert {skip.where: skip.reason for skip in source.skipped} == {
        f"train.tar#{member.name}": reason for (member, _), reason in bad
    }
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "train.tar"]


def test_a_sparse_file_is_not_believed(tmp_path: Path) -> None:
    headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**50)}
    member = tarfile.TarInfo("bomb.png")
    member.pax_headers = headers
    good = [plain(name, data) for name, data in sample("good", 1)]
    url = written(tmp_path, train=archive([(member, b"x"), *good], tarfile.PAX_FORMAT))
    source = read_source(url)
    assert len(source.images) == 1
    assert [skip.reason for skip in source.skipped] == ["it is a sparse file, whose size is a claim"]


def test_a_name_that_is_no_text_is_shown_and_refused(tmp_path: Path) -> None:
    data = archive([plain(name, data) for name, data in [*sample("good", 1), *sample("b\udcffd", 2)]])
    source = read_source(written(tmp_path, train=data))
    assert len(source.images) == 1
    assert {skip.where: skip.reason for skip in source.skipped} == {
        f"train.tar#b\\xffd.{extension}".replace("\\xff", "\\udcff"): "its name is not UTF-8"
        for extension in ("cls", "png")
    }


def _without_end() -> bytes:
    """A tar of one sample, without the two blocks of zeros that end a tar."""
    headers_and_label, image = 3 * 512, -(-len(png(1)) // 512) * 512
    return tar(sample("0", 1))[: headers_and_label + image]


def _claim(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header of a member whose size is a claim, and nothing behind it."""
    member = tarfile.TarInfo("claim.png")
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(_claim(2**60), id="a member of an exabyte"),
        pytest.param(_claim(2**40, tarfile.GNUTYPE_LONGNAME), id="a name of a terabyte"),
        pytest.param(_claim(2**40, tarfile.XHDTYPE), id="a pax header of a terabyte"),
        pytest.param(_claim(-1024), id="a size that leads back"),
        pytest.param(b"\x01" * 512, id="noise"),
        pytest.param(_claim(100)[:200], id="half a header"),
    ],
)
def test_a_tar_that_lies_or_was_cut_is_named_with_the_mend(tmp_path: Path, tail: bytes) -> None:
    body = _without_end()
    url = written(tmp_path, **{"train-0": tar(sample("1", 2)), "train-1": body + tail})
    with pytest.raises(SourceError, match=r"train-1\.tar is not a whole tar \(.*take it out of the source") as caught:
        listing(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_a_truncated_tar_is_named(tmp_path: Path, part: float) -> None:
    whole = tar([item for number in range(9) for item in sample(str(number), number)])
    whole = whole.rstrip(b"\0")
    url = written(tmp_path, **{"train-0": whole[: int(len(whole) * part)]})
    with pytest.raises(SourceError, match=r"train-0\.tar is not a whole tar"):
        listing(url)


@pytest.mark.parametrize("data", [b"", b"<html>no such bucket</html>", b"\0" * 5])
def test_what_is_no_tar_is_named(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(SourceError, match=r"train-0\.tar is not a whole tar"):
        listing(written(tmp_path, **{"train-0": data}))


def test_a_tar_without_its_last_blocks_is_whole(tmp_path: Path) -> None:
    assert members(listing(written(tmp_path, train=_without_end()))) == ["0.png"]


def test_a_compressed_tar_is_refused_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "train-0.tar.gz").write_bytes(b"\x1f\x8b")
    for url in (str(tmp_path), f"{tmp_path}/train-0.tar.gz"):
        with pytest.raises(SourceError, match=r"is compressed.*unpack it to a \.tar"):
            open_source(url)


def test_the_members_of_a_tar_are_limited(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("diffii.sources.tar.MAX_MEMBERS", 3)
    with pytest.raises(SourceError, match="more than 3 members"):
        listing(written(tmp_path, train=tar([*sample("0", 1), *sample("1", 2)])))
