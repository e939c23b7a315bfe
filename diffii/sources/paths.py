"""A list of images and their labels: CSV, TSV, JSON lines or Parquet with a path and a label per row.

Columns: the path (`file_name`, `path`, ...); `label` (a name or an index), with `class_name` beside an index; `split`,
`caption` and `context` are taken along. A place is a path below the list's folder, or a whole path or URL.
"""

from __future__ import annotations

import posixpath
from typing import Any

from diffii.dataset.storage import Storage
from diffii.errors import SourceError
from diffii.sources.interface import CAPTION_COLUMNS, CONTEXT_COLUMNS, NO_LABEL, Entry, Listing, first_of, told
from diffii.sources.labels import Told, as_index, resolve
from diffii.sources.splits import AS_USUAL, Splits
from diffii.sources.table import PATH_COLUMNS, rows_of

INDEX_COLUMNS = ("label", "labels", "class_id", "label_id", "class_index", "target", "fine_label")
NAME_COLUMNS = ("class_name", "label_name", "category", "class")
SPLIT_COLUMN = "split"


class PathList:
    """The list is `name` below a folder. `images` is what its paths lie below, if that is not the list's own folder."""

    def __init__(self, folder: Storage, names: list[str], images: str = "") -> None:
        self._folder, self._names = folder, names
        self._images = Storage(images).url if images and "://" not in images else images

    def listing(self, splits: Splits = AS_USUAL) -> Listing:
        url = self._folder.url
        rows: list[tuple[str, str, Any, Any, str, str]] = []
        there: dict[str, None] = {}
        indices = True
        skipped: list[tuple[str, str]] = []
        for name in self._names:
            for number, row in enumerate(rows_of(self._folder, name)):
                place = f"{name}#{number}"
                columns = list(row)
                path, index, title = (
                    first_of(columns, wanted) for wanted in (PATH_COLUMNS, INDEX_COLUMNS, NAME_COLUMNS)
                )
                if path is None or (index is None and title is None):
                    missing = PATH_COLUMNS[0] if path is None else "label"
                    raise SourceError(f"{url}: {name} has no column {missing!r}; its columns are {', '.join(columns)}")
                split = str(row.get(SPLIT_COLUMN) or "")
                there[split] = None
                where, fault = self._place(row[path])
                if fault:
                    skipped.append((place, fault))
                    continue
                label = _present(row[index]) if index else None
                indices = indices and (label is None or as_index(label) is not None)
                said = told(row, CAPTION_COLUMNS), told(row, CONTEXT_COLUMNS)
                rows.append((where, split, label, _present(row[title]) if title else None, *said))
        chosen = splits.chosen(list(there), url)
        rows = [row for row in rows if row[1] in chosen]
        classes, labels = resolve([_class(label, title, indices) for _, _, label, title, _, _ in rows], url)
        listing = Listing(classes, skipped=skipped)
        for (where, _, _, _, caption, context), label in zip(rows, labels, strict=True):
            if label is None:
                listing.skipped.append((where, NO_LABEL))
            else:
                listing.entries.append(Entry(where, label, caption, context))
        return listing

    def read(self, where: str) -> bytes:
        return Storage(where).read("") if "://" in where or where.startswith("/") else self._folder.read(where)

    def _place(self, path: Any) -> tuple[str, str]:
        """(place, "") of a path in the list, or ("", why it is refused)."""
        if not isinstance(path, str) or not path.strip():
            return "", "the row names no file"
        path = path.strip()
        base = self._images or "."
        if "://" in path or path.startswith("/"):
            inside = bool(self._images) and ".." not in path.split("/") and _below(path, self._images)
            return (path, "") if inside else ("", f"{path} is an absolute name; {self._mend()}")
        head, mark, tail = base.rpartition("://")
        joined = f"{head}{mark}{posixpath.normpath(posixpath.join(tail, path))}"
        if not self._images:
            return (joined, "") if not joined.startswith("../") and joined != ".." else ("", self._outside(path))
        return (joined, "") if _below(joined, self._images) else ("", self._outside(path))

    def _outside(self, path: str) -> str:
        return f"{path} leads out of the folder; {self._mend()}"

    def _mend(self) -> str:
        return "say where the images are: source.images=FOLDER_OR_URL" if not self._images else "see source.images"


def _below(path: str, root: str) -> bool:
    root = root if root.endswith("/") else f"{root}/"
    return path.startswith(root)


def _present(value: Any) -> Any:
    """None for what stands for nothing: null, NaN, an empty cell."""
    if value is None or value != value:
        return None
    return None if isinstance(value, str) and not value.strip() else value


def _class(label: Any, title: Any, indices: bool) -> Told:
    if not indices:
        # A label that is a name needs no other.
        return None, None if label is None else str(label)
    return as_index(label), None if title is None else str(title)
