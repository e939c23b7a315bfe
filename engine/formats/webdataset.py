"""WebDataset: plain tar files, the members of a sample side by side, and an index of where samples begin."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

from engine.formats.part import Origin, Part, Records, Written
from engine.formats.sample import Sample, samples

_OWNER = "diffii"


class WebDataset:
    """`<key>.cls` (label), `.json` (the row), `.txt` (caption) and the image; the same members for every sample."""

    name: ClassVar[str] = "webdataset"
    patterns: ClassVar[Mapping[Origin, str]] = {"data": "data/train-*.tar", "real": "real/train-*.tar"}

    def write(self, part: Part) -> Written:
        tar, offsets = write_tar(samples(part.table, part.captions), part.extension)
        name = f"{part.origin}/train-{part.number:06d}.tar"
        # The index first: a tar that readers see has one.
        return Written(files=[(f"{name}.idx", offsets), (name, tar)])

    def index(self, records: Records) -> Iterator[tuple[str, bytes]]:
        return iter(())

    def usage(self, url: str, extension: str) -> str:
        fields = f'{{"image":"{extension}","label":"cls"}}'
        return (
            f"energon prepare --non-interactive --split-parts 'train:(data|real)/train-.*' "
            f"--sample-type ImageClassificationSample --field-map '{fields}' {url}"
        )


def write_tar(rows: Iterable[Sample], extension: str) -> tuple[bytes, bytes]:
    """(tar, index): a POSIX ustar archive without times or people, and the uint64 offsets (little-endian) at which each
    sample begins and the last one ends."""
    buffer, offsets = io.BytesIO(), []
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for row in rows:
            offsets.append(tar.offset)
            members = {
                "cls": str(row.label).encode(),
                "json": row.json(),
                "txt": row.caption.encode(),
                extension: row.image,
            }
            for suffix, data in sorted(members.items()):
                member = tarfile.TarInfo(f"{row.key}.{suffix}")
                member.size, member.mode = len(data), 0o444
                member.uname = member.gname = _OWNER
                tar.addfile(member, io.BytesIO(data))
        offsets.append(tar.offset)
    return buffer.getvalue(), struct.pack(f"<{len(offsets)}Q", *offsets)
