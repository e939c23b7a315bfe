"""WebDataset's own reader, over the shards as its users name them; and tar itself."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from pathlib import Path
from typing import Any

import pytest
from webdataset.compat import WebDataset

from engine.run import Run
from tests.readers.made import Seen, expected, rgb


@pytest.mark.parametrize("real", [False, True])
def test_every_sample_is_whole(made: Run, copies: dict[str, Path], real: bool) -> None:
    place = copies["webdataset-real" if real else "webdataset"]
    shards = [f"{place}/data/train-{{000000..{len(made.history.shards) - 1:06d}}}.tar"]
    shards += [str(path) for path in sorted(place.glob("real/*.tar"))]
    rows: Any = WebDataset("::".join(shards), shardshuffle=False).decode("pil")
    seen = []
    for row in rows:
        facts = row["json"]
        assert row["__key__"] == facts["sample_id"] and facts["label"] == row["cls"]
        seen.append(Seen(row["__key__"], row["cls"], facts["class_name"], facts["is_synthetic"], rgb(row["png"])))
    assert sorted(seen, key=lambda row: row.sample_id) == expected(made, real)


def test_members_are_without_times_and_people_and_the_index_says_where_samples_begin(copies: dict[str, Path]) -> None:
    for path in sorted(copies["webdataset-real"].glob("*/*.tar")):
        data = path.read_bytes()
        index = path.with_name(f"{path.name}.idx").read_bytes()
        offsets = struct.unpack(f"<{len(index) // 8}Q", index)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            members = tar.getmembers()
        assert {(m.mtime, m.uid, m.gid, m.mode, m.isreg(), len(m.pax_headers)) for m in members} == {
            (0, 0, 0, 0o444, True, 0)
        }
        groups = [members[k : k + 4] for k in range(0, len(members), 4)]
        for group in groups:
            key = group[0].name.partition(".")[0]
            assert [member.name for member in group] == [f"{key}.{suffix}" for suffix in ("cls", "json", "png", "txt")]
        assert list(offsets[:-1]) == [group[0].offset for group in groups]
        # What is between the last sample and the end of the file is padding.
        assert offsets[-1] % 512 == 0 and not any(data[offsets[-1] :])
        facts = json.loads(_member(data, members[1]))
        assert isinstance(facts["seed"], str) and isinstance(facts["phi"], float)


def _member(data: bytes, member: tarfile.TarInfo) -> bytes:
    return data[member.offset_data : member.offset_data + member.size]
