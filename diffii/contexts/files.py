"""What the caption stage leaves behind: one small JSON file per image, a table of all, and the list of suffixes.

The table's columns: sha256, caption, context, score, margin, method (see `ImageContext`), one row per image.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pyarrow as pa

from diffii.dataset import layout
from diffii.dataset.storage import Storage
from diffii.dataset.tables import read_table, write_table
from diffii.errors import ConfigError, OutputError
from diffii.hashing import digest

Method = Literal["captioner", "diffusion", "source"]

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("sha256", "caption", "context")),
        *((name, pa.float64()) for name in ("score", "margin")),
        ("method", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageContext:
    """What one image shows besides its subject."""

    sha256: str
    """Of the image's bytes."""
    caption: str
    """The captioner's sentence, the source's own, or the prompt that the diffusion model chose."""
    context: str
    """A suffix for a prompt; empty when the caption tells none."""
    method: Method
    score: float | None = None
    """Diffusion only: loss relative to the other candidates'; lower is better."""
    margin: float | None = None
    """Diffusion only: how far the next best candidate is behind."""


def context_key(sha256: str, prompt: str, method: dict[str, Any]) -> str:
    """The cache key of an image's context: its bytes, its class's prompt, and all settings that shape the result.

    A captioner does not see the prompt; give it an empty one, and two labels of an image share their caption.
    """
    return digest("context", method, sha256, prompt)[:40]


def known_keys(storage: Storage) -> set[str]:
    """Keys of all contexts that are there."""
    return {name.rsplit("/", 1)[-1].removesuffix(".json") for name, _ in storage.find(layout.CONTEXTS)}


def put_context(storage: Storage, key: str, context: ImageContext) -> bool:
    """Store one image's context; False when it was there already."""
    data = json.dumps(asdict(context), sort_keys=True, ensure_ascii=False, indent=1)
    return storage.put_once(layout.context(key), f"{data}\n".encode())


def read_context(storage: Storage, key: str) -> ImageContext:
    """Raises FileNotFoundError when it is not there, OutputError when it is damaged."""
    name = layout.context(key)
    try:
        return ImageContext(**json.loads(storage.read(name)))
    except (ValueError, TypeError) as error:
        raise OutputError(f"{storage.url}/{name} is damaged ({error}); remove it and caption again") from error


def contexts_to_parquet(contexts: Iterable[ImageContext]) -> bytes:
    """The table of all images, in the order of their hashes: the same contexts give the same rows."""
    rows = sorted((asdict(context) for context in contexts), key=lambda row: (row["sha256"], row["caption"]))
    return write_table(pa.Table.from_pylist(rows, schema=SCHEMA))


def contexts_from_parquet(data: bytes) -> list[ImageContext]:
    """Raises OutputError when the bytes are no such table."""
    try:
        return [ImageContext(**row) for row in read_table(data, SCHEMA.names).to_pylist()]
    except (pa.ArrowException, TypeError) as error:
        raise OutputError(f"this is no table of image contexts: {error}") from error


def suffixes_to_text(suffixes: Iterable[str]) -> bytes:
    """A text file with one suffix a line, as `prompts.suffixes` takes it."""
    return "".join(f"{suffix}\n" for suffix in suffixes).encode()


def suffixes_from_text(data: bytes, name: str) -> list[str]:
    """One suffix a line; blank lines are passed over. Raises ConfigError, naming the file, when none is left."""
    try:
        found = [line.strip() for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is not UTF-8 text with one suffix a line") from error
    if not found:
        raise ConfigError(f"the file {name} holds no suffix")
    return found
