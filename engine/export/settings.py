"""What a copy of a data set is to be, and the file in which it says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from diffii.dataset import layout
from diffii.dataset.storage import Storage
from diffii.errors import ConfigError, OutputError
from diffii.hashing import digest
from diffii.images import Encoding
from engine.config import OutputConfig
from engine.formats.catalog import FORMATS
from engine.run import Run
from engine.settings import from_flat

OPENING = f"{layout.OWN}/export.json"
PARTS = f"{layout.OWN}/parts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Resolved: `encoding` is what the images will have; `stored` says that published ones have it already."""

    format: str
    encoding: Encoding
    quality: int | None
    include_real: bool
    mark: bool
    """Synthetic images that are encoded anew say that a model made them."""
    stored: bool

    def to_record(self) -> dict[str, Any]:
        """What identifies a copy: the same images come out whether they had the encoding already or were asked for."""
        return {name: value for name, value in asdict(self).items() if name != "stored"}


def settings_of(
    output: OutputConfig, format: str, encoding: str = "", quality: int | None = None, include_real: bool = False
) -> Settings:
    """`encoding` and `quality` default to what the data set has. Raises ConfigError."""
    if format not in FORMATS:
        raise ConfigError(f"--format {format}: there are {', '.join(FORMATS)}")
    asked: dict[str, Any] = {"output.encoding": encoding or output.encoding, "output.quality": quality}
    if quality is None and asked["output.encoding"] == output.encoding:
        asked["output.quality"] = output.quality
    wanted = from_flat(asked).output
    same = (wanted.encoding, wanted.quality) == (output.encoding, output.quality)
    return Settings(
        format=format,
        encoding=wanted.encoding,
        quality=wanted.quality,
        include_real=include_real,
        mark=output.mark,
        stored=same,
    )


def open_copy(storage: Storage, run: Run, settings: Settings) -> None:
    """Say in `storage` what it is a copy of, or find it said.

    Raises OutputError when something else is there: other files, another data set's copy, or one with other settings.
    """
    said = {"data_set": digest(run.identity, run.first_source), **settings.to_record(), "layout": 1}
    data = (json.dumps(said, sort_keys=True, indent=1) + "\n").encode()
    if storage.read_or_none(OPENING) is None:
        foreign = [name for name in storage.names() if name != layout.OWN]
        if foreign or layout.LOG.rpartition("/")[2] in storage.names(layout.OWN):
            raise OutputError(
                f"{storage.url} holds something else ({', '.join(foreign[:3]) or 'a data set'}); "
                "choose an empty or new place to export to"
            )
        if storage.put_once(OPENING, data):
            return
    _refuse_other(storage, json.loads(storage.read(OPENING)), said)


def _refuse_other(storage: Storage, there: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if there.get("data_set") != now["data_set"]:
        raise OutputError(f"{storage.url} is a copy of another data set; choose another place")
    changes = [f"{key}: {there.get(key)!r} there, {now[key]!r} now" for key in now if there.get(key) != now[key]]
    if changes:
        raise OutputError(
            f"{storage.url} was exported with other settings; repeat them, or choose another place. "
            + "; ".join(changes)
        )
