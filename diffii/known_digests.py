"""Digests of large files: computed once on each machine, and known as long as the file looks the same.

A model of several gigabytes is named by its contents in every command and compared in every actor, which without this
would read it again each time. A file looks the same while its place, size and times are: what writes to it, or puts
another in its place, changes the time of its last change, which nobody can set.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from diffii.hashing import digest, file_sha256
from diffii.model_cache import cache_folder

LARGE = 64 * 2**20
"""Bytes from which on remembering is worth a file; smaller ones are hashed in less than a tenth of a second."""
_HEX = 64


def known_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, from memory where it is large and was seen before. Raises OSError as reading does."""
    status = path.stat()
    if status.st_size < LARGE:
        return file_sha256(path)
    looks = digest(str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    place = cache_folder().parent / "digests" / looks[:32]
    with contextlib.suppress(OSError, ValueError):
        known = place.read_text(encoding="ascii")
        if len(known) == _HEX:
            return known
    found = file_sha256(path)
    # A machine whose cache cannot be written reads the file again.
    with contextlib.suppress(OSError):
        _keep(place, found)
    return found


def files_digest(paths: Iterable[Path]) -> str:
    """SHA-256 over names (without folders) and contents, in the order given."""
    return digest_of((path.name, path) for path in paths)


def digest_of(named: Iterable[tuple[str, Path]]) -> str:
    """SHA-256 (hex) over such names and the contents of their files, in the order given."""
    total = hashlib.sha256()
    for name, path in named:
        total.update(f"{name} {known_sha256(path)}\n".encode())
    return total.hexdigest()


def _keep(place: Path, text: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=place.parent)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(text)
    Path(temporary).replace(place)
