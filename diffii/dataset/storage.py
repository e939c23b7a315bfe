"""Every file of a data set goes through here: one fsspec URL, relative names, and one way to publish a file.

`put_once` is the only write that anything relies on: a file appears whole or not at all, the first writer wins, and
a second one is told so. On a local disk that is a temporary file in the same directory, fsync, and an exclusive hard
link; on object stores a conditional PUT (`mode="create"`).
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem

from diffii.dataset.patience import patiently
from diffii.errors import OutputError

TEMPORARY = ".tmp-"
UPLOAD_SECONDS = 60.0
"""After so long, and a second more for each `SLOWEST` bytes, an upload is begun again."""
SLOWEST = 2**20

T = TypeVar("T")


class Storage:
    """The files below one URL. Cheap to make; make one per process."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") or url
        self._fs, self.root = self._connect()
        self.is_local = isinstance(self.fs, LocalFileSystem)
        protocols = self.fs.protocol
        self.is_web = "http" in ((protocols,) if isinstance(protocols, str) else protocols)
        if self.is_local:
            # Another process may have another working directory.
            self.url = self.root

    @property
    def fs(self) -> Any:
        """What fsspec makes of the URL. A forked process (a DataLoader's worker) gets one of its own: connections and
        the thread that serves them do not survive a fork."""
        if self._process != os.getpid():
            self._fs, _ = self._connect()
        return self._fs

    def _connect(self) -> tuple[Any, str]:
        self._process = os.getpid()
        try:
            fs, root = fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            raise OutputError(f"{self.url}: {_to_install(self.url)} ({error})") from error
        except ValueError as error:
            raise OutputError(f"{self.url}: cannot open this kind of URL: {error}") from error
        # Listings are cached per process by default; other processes write here all the time. The cache also answers
        # `open` and `exists`, which then do not find a file that is newer than the last listing.
        fs.dircache.use_listings_cache = False
        fs.invalidate_cache()
        return fs, root

    def path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    def patiently(self, name: str, call: Callable[[], T]) -> T:
        """What `call` gives; it is made again while storage fails (`diffii.dataset.patience`). Raises OutputError."""
        return patiently(f"{self.url}/{name}", not self.is_local, call)

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError when it is not there."""
        return self.patiently(name, lambda: self.fs.cat_file(self.path(name)))

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Bytes [start, end) of a file; fewer where it is shorter. Raises FileNotFoundError when it is not there."""
        return self.patiently(name, lambda: self.fs.cat_file(self.path(name), start=start, end=end))

    def read_or_none(self, name: str) -> bytes | None:
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    def open(self, name: str) -> Any:
        """A seekable binary file for reading."""
        return self.patiently(name, lambda: self.fs.open(self.path(name), "rb"))

    def names(self, folder: str = "") -> list[str]:
        """Names directly in a folder, sorted; empty when it does not exist."""
        try:
            entries = self.patiently(folder, lambda: self.fs.ls(self.path(folder), detail=False, refresh=True))
        except (FileNotFoundError, NotADirectoryError):
            return []
        base = self.path(folder).rstrip("/")
        found = (entry.rstrip("/") for entry in entries)
        return sorted(entry.rsplit("/", 1)[-1] for entry in found if entry.strip("/") != base.strip("/"))

    def find(self, folder: str) -> list[tuple[str, int]]:
        """(name, size) of every file below a folder, sorted by name; empty when it does not exist."""
        base = self.path("").rstrip("/") + "/"
        try:
            found = self.patiently(folder, lambda: self.fs.find(self.path(folder), detail=True))
        except FileNotFoundError:
            return []
        return sorted((path.removeprefix(base), int(info.get("size") or 0)) for path, info in found.items())

    def put_once(self, name: str, data: bytes) -> bool:
        """Publish a file if there is none of this name; False when another was first."""
        if self.is_local:
            return self.patiently(name, lambda: _link_once(Path(self.path(name)), data))
        try:
            self._upload(name, data, mode="create")
        except FileExistsError:
            return False
        return True

    def put(self, name: str, data: bytes) -> None:
        """Replace a file that nothing relies on (a picture, a report, the data set card)."""
        if self.is_local:
            path = Path(self.path(name))
            self.patiently(name, lambda: _write_temporary(path.parent, data).replace(path))
        else:
            self._upload(name, data)

    def _upload(self, name: str, data: bytes, **mode: str) -> None:
        # aiohttp counts the time of an answer from the end of the upload, and S3's uploads begin when the server says
        # that they may: one that never says so would be waited for without end.
        limit = {"timeout": UPLOAD_SECONDS + len(data) // SLOWEST} if isinstance(self.fs, AsyncFileSystem) else {}
        self.patiently(name, lambda: self.fs.pipe_file(self.path(name), data, **mode, **limit))

    def take_over(self, name: str, other: Storage) -> None:
        """Have the file of this name in `other` here too: linked or copied where it lies, if storage can do that."""
        if self.is_local and other.is_local:
            target = Path(self.path(name))
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                target.hardlink_to(other.path(name))
                return
            except FileExistsError:
                return
            except OSError:  # another disk, or a file system without links
                pass
        elif type(self.fs) is type(other.fs) and not self.is_local:
            self.patiently(name, lambda: self.fs.cp_file(other.path(name), self.path(name)))
            return
        self.put_once(name, other.read(name))

    def remove(self, name: str) -> None:
        """Remove a file; no error when it is gone already."""
        try:
            self.patiently(name, lambda: self.fs.rm_file(self.path(name)))
        except FileNotFoundError:
            return


EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), ("s3", "s3fs")),
    **dict.fromkeys(("gs", "gcs"), ("gcs", "gcsfs")),
    **dict.fromkeys(("abfs", "abfss", "az", "adl"), ("azure", "adlfs")),
    **dict.fromkeys(("http", "https"), ("http", "aiohttp")),
}
"""Kind of URL -> (extra of diffii, package in it) that opens it."""


def _to_install(url: str) -> str:
    protocol = url.partition("://")[0]
    if protocol not in EXTRAS:
        return f"{protocol}:// needs a package that is not installed"
    extra, package = EXTRAS[protocol]
    return f"{protocol}:// needs the package {package}, which is not installed: pip install 'diffii[{extra}]'"


_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def _link_once(path: Path, data: bytes) -> bool:
    temporary = _write_temporary(path.parent, data)
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    except FileNotFoundError:
        # Another driver has swept what it took for a dead one's.
        return _link_once(path, data)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        raise OutputError(
            f"{path.parent} is on a file system without hard links ({error.strerror}), by which files are published "
            "whole; use another disk or an object store"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return True


def _write_temporary(folder: Path, data: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        # A full disk must not be filled further by what did not fit.
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    # A link that the folder's own block does not hold yet can vanish with the power.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
