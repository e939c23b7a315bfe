"""Labelled images wherever and however a user keeps them: one reader per layout, one interface for all.

An image folder; Parquet or a directory of Hugging Face `datasets`; WebDataset tars; a CSV, TSV, JSON lines or Parquet
list of paths; a data set of the hub. On a local disk, in an object store or on a web server, by fsspec.
"""

from __future__ import annotations

from collections.abc import Callable

from diffii.dataset.storage import Storage
from diffii.errors import OutputError, SourceError
from diffii.sources.arrow import SavedDataset, is_saved
from diffii.sources.folder import ImageFolder, folders
from diffii.sources.hub import located
from diffii.sources.interface import IMAGE_COLUMNS, Entry, Listing, Reader
from diffii.sources.parquet import SUFFIX as PARQUET
from diffii.sources.parquet import ParquetImages
from diffii.sources.paths import PathList
from diffii.sources.splits import AS_USUAL, Splits, is_one, shards
from diffii.sources.table import PATH_COLUMNS, TEXT_SUFFIXES, metadata_name
from diffii.sources.webdataset import PACKED, WebDataset
from diffii.sources.webdataset import SUFFIX as TAR

__all__ = ["AS_USUAL", "Entry", "Listing", "Reader", "Splits", "open_source", "opener", "settled"]


def settled(url: str) -> str:
    """The URL that names a source for good: a whole path, or a data set of the hub with its commit.

    Raises SourceError.
    """
    found = located(url) if url else None
    return _storage(url).url if found is None or found.url == found.place else found.url


def opener(url: str) -> Callable[[str], bytes]:
    """A function from an image's place below `url` to its bytes; safe to call from several threads."""
    return open_source(url).read


def open_source(url: str, images: str = "") -> Reader:
    """The reader of what lies at a URL. `images` is what the paths of a list lie below, if not its own folder.

    Raises SourceError when it is no source, or when what opens its kind of URL is not installed.
    """
    storage = _storage(url)
    if not storage.fs.exists(storage.root):
        raise SourceError(f"{url}: there is nothing there")
    name = storage.root.rsplit("/", 1)[-1]
    if name.endswith(TEXT_SUFFIXES) and not storage.fs.isdir(storage.root):
        return PathList(_folder_of(storage), [name], images)
    if name.endswith(PACKED):
        raise SourceError(f"{url} is compressed, so no image of it can be read alone; unpack it to a .tar")
    if is_one(storage, TAR):
        return WebDataset(storage)
    if is_one(storage, PARQUET):
        return _parquet(storage, _folder_of(storage), [name], images)
    if not storage.fs.isdir(storage.root):
        raise SourceError(
            f"{storage.url} is a single file; give a folder of class folders, or a .parquet, .tar, .csv, .tsv or .jsonl"
        )
    if is_saved(storage):
        return SavedDataset(storage)
    if files := shards(storage, PARQUET):
        return _parquet(storage, storage, list(files), images)
    if _is_tars(storage):
        return WebDataset(storage)
    if (metadata := metadata_name(storage)) and not folders(storage, storage.root):
        return PathList(storage, [metadata], images)
    return ImageFolder(storage)


def _storage(url: str) -> Storage:
    if not url:
        raise SourceError("source.url is empty: give a folder of class folders, or Parquet with image and label")
    try:
        return Storage(located(url).place)
    except OutputError as error:
        raise SourceError(str(error)) from error


def _parquet(storage: Storage, folder: Storage, names: list[str], images: str) -> Reader:
    reader = ParquetImages(storage)
    schema = reader.file(names[0]).schema_arrow
    holds = [name for name in IMAGE_COLUMNS if name in schema.names and str(schema.field(name).type) not in _TEXT]
    if not holds and any(name in schema.names and str(schema.field(name).type) in _TEXT for name in PATH_COLUMNS):
        return PathList(folder, names, images)
    return reader


_TEXT = ("string", "large_string", "string_view")


def _is_tars(storage: Storage) -> bool:
    # An archive may lie beside the class folders that came out of it.
    if set(folders(storage, storage.root)) - {"data", "default", "train", "test", "validation", "val"}:
        return False
    if shards(storage, TAR):
        return True
    packed = [name for name in storage.names() if name.endswith(PACKED)]
    if packed and not folders(storage, storage.root):
        raise SourceError(
            f"{storage.url}: {packed[0]} is compressed, so no image of it can be read alone; unpack it to a .tar"
        )
    return False


def _folder_of(storage: Storage) -> Storage:
    return Storage(storage.url.rpartition("/")[0] or "/")
