"""A data set of the Hugging Face hub by its id: downloaded once to the hub's own cache, and read like any directory.

`hf://datasets/owner/name`, with `@revision` behind it if not the newest; or `owner/name`, as `datasets.load_dataset`
takes it, where there is no such folder. What is read is named with its commit, so that every actor reads the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from diffii.errors import SourceError

PREFIX = "hf://datasets/"
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[^@]+)?")
_FILES = ["*.parquet", "*.arrow", "*.tar", "*.csv", "*.tsv", "*.jsonl", "*.json", "*.md"]
_IMAGES = ["*.png", "*.jpg", "*.jpeg", "*.webp", "*.bmp", "*.gif", "*.tif", "*.tiff", "*.avif"]
"""What of a repository is taken: nothing in it that could be run."""


@dataclass(frozen=True, slots=True)
class Located:
    """Where a source is: `url` names it for good, `place` is where its files are."""

    url: str
    place: str


def located(url: str) -> Located:
    """A hub id's own copy on this machine, downloaded if need be; every other URL as it is. Raises SourceError."""
    repository = _repository(url)
    if repository is None:
        return Located(url, url)
    name, _, revision = repository.partition("@")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        place = snapshot_download(
            name, repo_type="dataset", revision=revision or None, allow_patterns=[*_FILES, *_both_cases(_IMAGES)]
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise SourceError(
            f"{url}: there is nothing there, and no data set of that name is to be had from the hub "
            f"({type(error).__name__}); check the name and the network, or give a path or URL"
        ) from error
    # The cache calls a snapshot by its commit.
    return Located(f"{PREFIX}{name}@{Path(place).name}", place)


def _repository(url: str) -> str | None:
    if url.startswith(PREFIX):
        name = url.removeprefix(PREFIX).strip("/")
        if not _ID.fullmatch(name):
            raise SourceError(f"{url} is no data set of the hub; write it as {PREFIX}owner/name or owner/name@revision")
        return name
    return url if _ID.fullmatch(url) and not Path(url).exists() else None


def _both_cases(patterns: list[str]) -> list[str]:
    return [*patterns, *(pattern.upper() for pattern in patterns)]
