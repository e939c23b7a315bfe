"""Which part of a source is meant: what is expanded, and the split that the user keeps apart.

Splits are told by the names of folders (`test/<class>/1.png`), of files (`test-00000.parquet`), or by a column `split`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from diffii.dataset.storage import Storage
from diffii.errors import DiffiiError, SourceError

TRAIN = "train"
_USUAL = (TRAIN, "training", "test", "testing", "validation", "valid", "val", "dev", "eval")
_CARD = "README.md"


@dataclass(frozen=True, slots=True)
class Splits:
    """`wanted` is a split's name; empty is `train` where there is one, else everything. `without` is never meant."""

    wanted: str = ""
    without: str = ""

    def chosen(self, there: Sequence[str], url: str) -> list[str]:
        """Those of the splits that are meant. Raises SourceError when one that is named is not there."""
        for name in (self.wanted, self.without):
            if name and name not in there:
                known = ", ".join(sorted({split for split in there if split})[:8]) or "none that it names"
                raise SourceError(f"{url} has no split {name!r}; it has {known}")
        if self.wanted:
            return [self.wanted]
        kept = [name for name in there if not self.without or name != self.without]
        return [TRAIN] if TRAIN in kept else kept


AS_USUAL = Splits()


def is_one(storage: Storage, suffix: str) -> bool:
    """Is the source itself one file of this kind? Some writers make a folder of such a name, with parts in it."""
    return storage.root.endswith(suffix) and not storage.fs.isdir(storage.root)


def shards(storage: Storage, suffix: str) -> dict[str, str]:
    """File -> split of the files that hold many images each (Parquet, tar), in the order of their names.

    It is the source itself; or they lie in its folder, in `data`, where the folder's card says so, or in folders named
    after splits.
    """
    if is_one(storage, suffix):
        name = storage.root.rsplit("/", 1)[-1]
        return {name: split_of(name)}
    if declared := _declared(storage, suffix):
        return declared
    for folder in ("", "data"):
        names = [name for name in storage.names(folder) if _is_shard(name, suffix)]
        if names:
            return {f"{folder}/{name}" if folder else name: split_of(name) for name in names}
    found: dict[str, str] = {}
    for above in ("", "default/", "data/"):
        folders = storage.names(above.rstrip("/"))
        for split in sorted(set(folders).intersection(_USUAL)):
            names = storage.names(f"{above}{split}")
            found |= {f"{above}{split}/{name}": _usual(split) for name in names if _is_shard(name, suffix)}
        if found:
            break
    return found


def split_of(name: str) -> str:
    """The split that a file's name begins with: `train-00000-of-00001.parquet`, `test_3.tar`; else its first word."""
    stem = name.rsplit("/", 1)[-1]
    if stem.startswith(TRAIN):
        return TRAIN
    match = re.match(r"[A-Za-z]+(?=[-_.0-9])", stem)
    return match.group() if match else ""


def _usual(split: str) -> str:
    return TRAIN if split.startswith(TRAIN) else split


def _is_shard(name: str, suffix: str) -> bool:
    return name.endswith(suffix) and not name.startswith((".", "_")) and name != f"metadata{suffix}"


def _declared(storage: Storage, suffix: str) -> dict[str, str]:
    """What the first configuration in a data set card (`configs:` in its front matter) names, as the hub reads it."""
    try:
        text = storage.read(_CARD).decode("utf-8")
        head = yaml.safe_load(text.split("---", 2)[1]) if text.startswith("---") else None
    except (OSError, DiffiiError, IndexError, yaml.YAMLError, ValueError):
        return {}
    configs = head.get("configs") if isinstance(head, dict) else None
    configs = [config for config in configs or [] if isinstance(config, dict)] if isinstance(configs, list) else []
    config = next((one for one in configs if one.get("default") or one.get("config_name") == "default"), None)
    files = (config or (configs[0] if configs else {})).get("data_files") or []
    found: dict[str, str] = {}
    for item in files if isinstance(files, list) else [files]:
        split, patterns = (item.get("split", TRAIN), item.get("path")) if isinstance(item, dict) else (TRAIN, item)
        for pattern in patterns if isinstance(patterns, list) else [patterns]:
            for name in _matching(storage, pattern):
                if _is_shard(name.rsplit("/", 1)[-1], suffix):
                    found.setdefault(name, _usual(str(split)))
    return found


def _matching(storage: Storage, pattern: Any) -> list[str]:
    # A card is the work of whoever made the data set: it may name what lies below it and nothing else.
    if not isinstance(pattern, str) or not pattern or pattern.startswith("/") or ".." in pattern.split("/"):
        return []
    if "://" in pattern:
        return []
    try:
        paths = storage.fs.glob(storage.path(pattern))
    except (OSError, NotImplementedError, ValueError):
        return []
    base = storage.path("").rstrip("/") + "/"
    return sorted(str(path).removeprefix(base) for path in paths)
