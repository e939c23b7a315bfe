"""What is in a tar, without unpacking it: members one by one, none of them trusted.

Nothing is ever written under a member's name, so `..` and links could do no harm here; they are refused because whoever
made such a tar meant it for a program that they do harm to.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_MEMBERS = 5_000_000
MAX_MEMBER_BYTES = 2 * 2**30
"""A larger member is no image that a scan with the widest limits would take."""
_MAX_HEADER = 2**20
"""A header may claim that a name of gigabytes follows; tarfile would read it."""


class DamagedTar(Exception):
    """Why a file is no whole tar."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file in a tar: its bytes are [offset, offset + size). `fault` says why it must not be used."""

    name: str
    offset: int
    size: int
    fault: str = ""


def members(file: Any, length: int) -> Iterator[Member]:
    """The files in an open tar of `length` bytes, in order; folders are passed over. Raises DamagedTar.

    `file` may be read elsewhere between two members.
    """
    try:
        yield from _members(file, length)
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise DamagedTar(str(error) or type(error).__name__) from error


def _members(file: Any, length: int) -> Iterator[Member]:
    count, at = 0, 0
    with tarfile.open(fileobj=_Headers(file), mode="r:") as tar:
        while (member := tar.next()) is not None:
            # tarfile keeps them all, and trusts a size that leads backwards, for ever.
            tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
            if member.size < 0 or tar.offset <= at:
                raise DamagedTar(f"{_shown(member.name)} has a size below 0")
            at, count = tar.offset, count + 1
            if count > MAX_MEMBERS:
                raise DamagedTar(f"more than {MAX_MEMBERS} members")
            if member.isreg() and not member.issparse() and member.offset_data + member.size > length:
                raise DamagedTar(f"{_shown(member.name)} goes on beyond the end of the file")
            if not member.isdir():
                yield Member(_shown(member.name), member.offset_data, member.size, _fault(member))
        # A header that makes no sense ends a tar for tarfile, like the end of it.
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise DamagedTar(f"there is no member at byte {tar.offset}, where one should begin")


def _fault(member: tarfile.TarInfo) -> str:
    name = member.name
    if name.startswith("/") or ".." in name.replace("\\", "/").split("/") or name[1:2] == ":":
        return "its name leads out of the tar"
    if member.issym() or member.islnk():
        return "it is a link, not a file"
    if not member.isreg():
        return "it is a device, not a file"
    if member.issparse():
        return "it is a sparse file, whose size is a claim"
    if member.size > MAX_MEMBER_BYTES:
        return f"{member.size} bytes are more than the limit of {MAX_MEMBER_BYTES}"
    return "" if _shown(name) == name else "its name is not UTF-8"


def _shown(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


class _Headers(io.RawIOBase):
    """The file as tarfile may see it: it reads headers, and skips what they are about."""

    def __init__(self, file: Any) -> None:
        super().__init__()
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header claims to be {size} bytes long")
        return self._file.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()
