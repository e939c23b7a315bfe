"""An image folder: `class/image.jpg`, or `train/class/image.jpg` beside other splits; a place is a path.

`metadata.csv`, `.jsonl` or `.parquet` beside the class folders, as `datasets` keeps it, may bring captions.
"""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from diffii.dataset import layout
from diffii.dataset.storage import Storage
from diffii.errors import SourceError
from diffii.images import OTHER_IMAGES, SUFFIXES
from diffii.sources.interface import CAPTION_COLUMNS, CONTEXT_COLUMNS, Entry, Listing, first_of, told
from diffii.sources.splits import AS_USUAL, TRAIN, Splits
from diffii.sources.table import PATH_COLUMNS, metadata_name, rows_of


class ImageFolder:
    """Images in class folders, at any depth below them; classes in the order of their names."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._root = storage.root.rstrip("/")

    def listing(self, splits: Splits = AS_USUAL) -> Listing:
        bases = self._bases(splits)
        names: dict[str, str] = {}
        for base in bases:
            names |= {name: self._class(name) for name in folders(self._storage, base)}
        if not names:
            raise SourceError(f"{self._storage.url} holds no class folders; images belong in <class>/<image>.png")
        ordered = sorted(names, key=lambda name: names[name])
        listing = Listing(tuple(names[name] for name in ordered))
        for base in bases:
            for name in _images_in(self._storage, base):
                listing.skipped.append((name, "it is beside the class folders, so it has no class"))
            for name in _underscored(self._storage, base):
                listing.skipped.append(
                    (f"{self._below(base)}/{name}/".lstrip("/"), "no class begins with _; rename it")
                )
        said = {base: self._words(base, listing) for base in bases}
        for label, name in enumerate(ordered):
            found = 0
            for base in bases:
                for where in self._images(f"{base}/{name}", listing):
                    inside = where.removeprefix(self._below(base)).lstrip("/")
                    words = said[base].pop(_one_form(inside), ("", ""))
                    listing.entries.append(Entry(where, label, *words))
                    found += 1
            if not found:
                listing.skipped.append((f"{name}/", "the class folder holds no images"))
        for base, words in said.items():
            if words:
                name, inside = metadata_name(self._storage, self._below(base)), min(words)
                listing.skipped.append(
                    (name, f"{len(words)} of its rows name no image in a class folder: {inside}, ...")
                )
        return listing

    def read(self, where: str) -> bytes:
        return self._storage.read(where)

    def _bases(self, splits: Splits) -> list[str]:
        """The folders that hold class folders."""
        there = folders(self._storage, self._root)
        named = {splits.wanted, splits.without} - {""}
        with_classes = [TRAIN] if TRAIN in there and self._has_folders(TRAIN) else []
        if named:
            # Every folder is a split once one is named; those without class folders have nothing to give.
            with_classes = [name for name in there if self._has_folders(name)]
        if named or with_classes:
            return [f"{self._root}/{name}" for name in splits.chosen(with_classes, self._storage.url)]
        return [self._root]

    def _words(self, base: str, listing: Listing) -> dict[str, tuple[str, str]]:
        """File name, in one form, -> (caption, context) of the metadata beside class folders."""
        name = metadata_name(self._storage, self._below(base))
        try:
            rows = list(rows_of(self._storage, name)) if name else []
        except SourceError as error:
            # The images are not the worse for it.
            listing.skipped.append((name, f"its captions cannot be read: {error}"))
            return {}
        path = first_of(list(rows[0]), PATH_COLUMNS) if rows else None
        if path is None:
            return {}
        return {_one_form(str(row[path])): (told(row, CAPTION_COLUMNS), told(row, CONTEXT_COLUMNS)) for row in rows}

    def _has_folders(self, name: str) -> bool:
        return bool(folders(self._storage, f"{self._root}/{name}"))

    def _images(self, folder: str, listing: Listing) -> list[str]:
        """Places of the images at any depth below a folder; what looks like more of them is put down as skipped."""
        found: list[str] = []
        for path, info in sorted(self._storage.fs.find(folder, detail=True).items()):
            below = path.removeprefix(f"{folder}/")
            if any(part.startswith(".") for part in below.split("/")):
                continue
            suffix = PurePosixPath(below).suffix.lower()
            if suffix in SUFFIXES:
                found.append(self._below(path))
            elif suffix in OTHER_IMAGES:
                listing.skipped.append((self._below(path), f"{suffix} files are not read; convert it to PNG or JPEG"))
            elif info.get("islink") and self._storage.fs.isdir(path):
                listing.skipped.append((self._below(path), "a link to a folder is not followed inside a class folder"))
        return found

    def _below(self, path: str) -> str:
        return path.removeprefix(self._root).lstrip("/")

    def _class(self, folder: str) -> str:
        # The index page of a web server names its folders as URLs do.
        return unquote(folder) if self._storage.is_web else folder


def _one_form(name: str) -> str:
    """A Mac spells é as two characters where others have one."""
    return unicodedata.normalize("NFC", name)


def folders(storage: Storage, path: str) -> list[str]:
    """Names of the folders in a folder that are not hidden, sorted."""
    return [name for name in _all_folders(storage, path) if not name.startswith((".", "_"))]


def _underscored(storage: Storage, path: str) -> list[str]:
    """Folders that a person may have meant as classes: not what programs keep beside images (`__MACOSX`, our own)."""
    names = _all_folders(storage, path)
    return [name for name in names if name.startswith("_") and not name.startswith("__") and name != layout.OWN]


def _all_folders(storage: Storage, path: str) -> list[str]:
    def is_folder(entry: dict[str, Any]) -> bool:
        # fsspec does not call a link to a folder a directory.
        return entry["type"] == "directory" or (bool(entry.get("islink")) and storage.fs.isdir(entry["name"]))

    entries = storage.fs.ls(path, detail=True)
    return sorted(entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in entries if is_folder(entry))


def _images_in(storage: Storage, folder: str) -> list[str]:
    """Images that lie directly in a folder, as places below the source's URL."""
    names = (entry["name"] for entry in storage.fs.ls(folder, detail=True) if entry["type"] == "file")
    images = (name for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES)
    below = (name.removeprefix(storage.root.rstrip("/")).lstrip("/") for name in images)
    return sorted(name for name in below if not name.rsplit("/", 1)[-1].startswith("."))
