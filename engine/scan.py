"""From a folder or Parquet to a `Source`: every image found, hashed, and decoded once.

A file that cannot be used is skipped, by name and with the reason; it never ends a run and never takes another with it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from diffii.dataset.storage import Storage
from diffii.errors import OutputError, SourceError
from diffii.hashing import sha256
from diffii.image_files import ParquetImages, is_parquet
from diffii.images import SUFFIXES, UnreadableImage, decode
from engine.source import Skipped, Source, SourceImage

SPLIT_TO_EXPAND = "train"


def read_source(url: str, threads: int = 8) -> Source:
    """Scan a source: a folder `class/image`, a folder with `train/class/image`, or Parquet with image and label.

    Raises SourceError when there is nothing to expand.
    """
    storage = _open(url)
    candidates, classes, skipped = _candidates(storage)
    with ThreadPoolExecutor(threads) as pool:
        checked = list(pool.map(_check, candidates))
    images: dict[str, SourceImage] = {}
    contradicted: dict[str, set[str]] = {}
    for candidate, outcome in zip(candidates, checked, strict=True):
        if isinstance(outcome, Skipped):
            skipped.append(outcome)
            continue
        image = SourceImage(outcome, candidate.label, candidate.where)
        first = images.setdefault(image.sha256, image)
        if first is image:
            continue
        if first.label == image.label:
            skipped.append(Skipped(image.where, f"the same image as {first.where}"))
        else:
            contradicted.setdefault(image.sha256, {first.where}).add(image.where)
    for key, places in sorted(contradicted.items()):
        del images[key]
        # Which label is right cannot be known here, and a wrong one teaches the classifier a lie.
        reason = f"one image under different labels: {', '.join(sorted(places))}"
        skipped += [Skipped(place, reason) for place in sorted(places)]
    ordered = tuple(sorted(images.values(), key=lambda image: (image.label, image.sha256)))
    skipped.sort(key=lambda skip: skip.where)
    return _name_empty_classes(Source(storage.url, tuple(classes), ordered, tuple(skipped)))


@dataclass(frozen=True, slots=True)
class _Candidate:
    where: str
    label: int
    read: Callable[[], bytes]


def _open(url: str) -> Storage:
    if not url:
        raise SourceError("source.url is empty: give a folder of class folders, or Parquet with image and label")
    try:
        storage = Storage(url)
    except OutputError as error:
        raise SourceError(str(error)) from error
    if not storage.fs.exists(storage.root):
        raise SourceError(f"{url}: there is nothing there")
    return storage


def _candidates(storage: Storage) -> tuple[list[_Candidate], list[str], list[Skipped]]:
    if is_parquet(storage):
        return _from_parquet(storage)
    if not storage.fs.isdir(storage.root):
        raise SourceError(f"{storage.url} is a single file; give a folder of class folders, or a .parquet file")
    return _from_folder(storage)


def _from_folder(storage: Storage) -> tuple[list[_Candidate], list[str], list[Skipped]]:
    base = storage.root.rstrip("/")
    folders = _folders(storage, base)
    if SPLIT_TO_EXPAND in folders and _folders(storage, f"{base}/{SPLIT_TO_EXPAND}"):
        base = f"{base}/{SPLIT_TO_EXPAND}"
        folders = _folders(storage, base)
    if not folders:
        raise SourceError(f"{storage.url} holds no class folders; images belong in <class>/<image>.png")
    candidates: list[_Candidate] = []
    skipped = [
        Skipped(name, "it is beside the class folders, so it has no class") for name in _images_in(storage, base)
    ]
    for label, name in enumerate(folders):
        found = 0
        for path in sorted(storage.fs.find(f"{base}/{name}")):
            where = path.removeprefix(storage.root.rstrip("/")).lstrip("/")
            below = path.removeprefix(f"{base}/{name}/")
            hidden = any(part.startswith(".") for part in below.split("/"))
            if hidden or PurePosixPath(below).suffix.lower() not in SUFFIXES:
                continue
            candidates.append(_Candidate(where, label, lambda where=where: storage.read(where)))
            found += 1
        if not found:
            skipped.append(Skipped(f"{name}/", "the class folder holds no images"))
    return candidates, folders, skipped


def _folders(storage: Storage, path: str) -> list[str]:
    def is_folder(entry: dict[str, Any]) -> bool:
        # fsspec does not call a link to a folder a directory.
        return entry["type"] == "directory" or (bool(entry.get("islink")) and storage.fs.isdir(entry["name"]))

    entries = storage.fs.ls(path, detail=True)
    names = (entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in entries if is_folder(entry))
    return sorted(name for name in names if not name.startswith((".", "_")))


def _from_parquet(storage: Storage) -> tuple[list[_Candidate], list[str], list[Skipped]]:
    reader = ParquetImages(storage)
    rows = reader.labels()
    candidates = [_Candidate(where, label, lambda where=where: reader.read(where)) for where, label in rows]
    return candidates, reader.classes, [Skipped(where, "the row has no label") for where in reader.unlabelled]


def _check(candidate: _Candidate) -> str | Skipped:
    """The content hash of a usable image, or why it is not usable."""
    try:
        data = candidate.read()
        decode(data)
    except UnreadableImage as error:
        return Skipped(candidate.where, str(error))
    except OSError as error:
        return Skipped(candidate.where, f"cannot be read: {error}")
    return sha256(data)


def _name_empty_classes(source: Source) -> Source:
    """Keep every class in its place, so that labels survive by index; name those that have nothing to expand."""
    if not source.images:
        some = "; ".join(f"{skip.where}: {skip.reason}" for skip in source.skipped[:3])
        raise SourceError(f"{source.url} holds no usable image" + (f" ({some})" if some else ""))
    named = {skip.where for skip in source.skipped}
    empty = tuple(
        Skipped(f"{name}/", "no usable image is left in this class")
        for name, images in zip(source.classes, source.by_class, strict=True)
        if not images and f"{name}/" not in named
    )
    return replace(source, skipped=source.skipped + empty)


def _images_in(storage: Storage, folder: str) -> list[str]:
    """Images that lie directly in a folder, as places below the source's URL."""
    names = (entry["name"] for entry in storage.fs.ls(folder, detail=True) if entry["type"] == "file")
    images = (name for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES)
    below = (name.removeprefix(storage.root.rstrip("/")).lstrip("/") for name in images)
    return sorted(name for name in below if not name.rsplit("/", 1)[-1].startswith("."))
