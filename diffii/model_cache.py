"""A model at a URL (`s3://...`, `gs://...`): copied once to each machine that computes with it, whoever asks there.

The first process takes a lock and copies to a temporary folder, which gets its name once it is whole; the others wait
and find it. The name follows from the URL and from what storage says of the files, so a model that is replaced there
is another one here. What is copied is checked by size; that it is the model of the run, by its weights' digest
(`actors.model.load`).
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from filelock import FileLock

from diffii.dataset.storage import Storage
from diffii.errors import ModelError
from diffii.hashing import digest

CACHE_VARIABLE = "DIFFII_CACHE"
"""Environment variable that names the folder; by default `diffii` in XDG_CACHE_HOME or ~/.cache."""
_COPIES = 4
_VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "last_modified", "updated", "mtime")
"""What file systems call a sign that a file is another one than before."""


def is_url(model: str) -> bool:
    return "://" in model


def copied(url: str, *, key: str, marker: str, wanted: Sequence[str], unwanted: Sequence[str]) -> Path:
    """The local copy of the model at `url`, made if there is none; `marker` is a file that it must have.

    Of its files those that match `wanted` and not `unwanted` are taken. `key` is the setting that named it. Raises
    ModelError when there is no such model, or not enough disk.
    """
    storage = Storage(url)
    files = {
        name: info
        for name, info in _listed(storage, key).items()
        if any(fnmatch.fnmatch(name, pattern) for pattern in wanted)
        and not any(fnmatch.fnmatch(name, pattern) for pattern in unwanted)
    }
    for name in files:
        if ".." in name.split("/") or name.startswith("/") or "\\" in name:
            raise ModelError(f"{key}: {url} has a file called {name!r}, which would lie elsewhere; remove it")
    if marker not in files:
        raise ModelError(f"{key}: there is no {marker} at {url}; give the folder that save_pretrained wrote")
    versions = [[name, *(str(info.get(sign, "")) for sign in ("size", *_VERSIONS))] for name, info in files.items()]
    folder = cache_folder() / digest(url, sorted(versions))[:32]
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            _copy(storage, {name: info.get("size") for name, info in files.items()}, folder, key)
    return folder


def cache_folder() -> Path:
    """Where this machine keeps its copies."""
    own = os.environ.get(CACHE_VARIABLE)
    if own:
        return Path(own) / "models"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffii" / "models"


def _listed(storage: Storage, key: str) -> dict[str, dict[str, Any]]:
    base = storage.path("").rstrip("/") + "/"
    try:
        found = storage.patiently("", lambda: storage.fs.find(storage.root, detail=True))
    except FileNotFoundError:
        found = {}
    if not found:
        raise ModelError(f"{key}: there is nothing at {storage.url}")
    return {path.removeprefix(base): info for path, info in found.items()}


def _copy(storage: Storage, sizes: dict[str, int | None], folder: Path, key: str) -> None:
    """`sizes` in bytes, None where storage does not tell (the index page of a web server)."""
    room, need = shutil.disk_usage(folder.parent).free, sum(size or 0 for size in sizes.values())
    if need > room:
        raise ModelError(
            f"{key}: {storage.url} takes {need >> 20} MiB and {folder.parent} has room for "
            f"{room >> 20}; free some, or name another folder by {CACHE_VARIABLE}"
        )
    for left in folder.parent.glob(f"{folder.name}.part-*"):
        shutil.rmtree(left)  # of a process that died: whoever has the lock is alone
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=folder.parent))

    def get(name: str) -> None:
        to = part / name
        to.parent.mkdir(parents=True, exist_ok=True)
        storage.patiently(name, lambda: storage.fs.get_file(storage.path(name), str(to)))
        if sizes[name] is not None and to.stat().st_size != sizes[name]:
            raise ModelError(f"{key}: {storage.url}/{name} has changed while it was copied; run the same command again")

    try:
        with ThreadPoolExecutor(_COPIES) as pool:
            list(pool.map(get, sizes))
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
