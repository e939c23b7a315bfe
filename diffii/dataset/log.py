"""The commit log: numbered JSON files, each created exclusively, that say what a data set is.

    0      `open`   what the data set is made of: identity, source, class names
    n      `wave`   a wave of the plan begins: for each class the ordinals [start, stop)
    n      `growth` the source has grown: the waves that follow are of its new images, too
    n      `near-copies` how near is too near, measured on the real images before the first row is decided
    n      `commit` a range of consecutive chunks is decided: the outcome of every row, and the shard if rows were kept

A reader at version v sees exactly the shards of the entries up to v. Nothing is ever changed or removed: an entry that
is old enough to be in a checkpoint still keeps a driver that slept from writing its number.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from diffii.errors import OutputError

LOG_FORMAT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenEntry:
    """What the data set is made of. `identity` is the flat configuration that may never change."""

    identity: dict[str, Any]
    source: str
    """Digest of the source manifest, whose file is named after it."""
    classes: list[str]
    model: str
    """Where the model was; what it was is in the identity."""
    origin: str = ""
    """Where the real images were when the run began."""
    names: dict[str, str] = field(default_factory=dict)
    """Class -> the tokens that name it in prompts, where concepts were learned."""
    suffixes: list[str] = field(default_factory=list)
    """The contexts that prompts of the first stage end with."""
    format: int = LOG_FORMAT
    kind: str = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveEntry:
    """A wave of the plan: per class (in the order of labels) the ordinals from `starts` up to `stops`."""

    wave: int
    starts: list[int]
    stops: list[int]
    targets: list[int]
    """Kept rows wanted per class once the wave is decided."""
    limits: list[int]
    """Ordinals per class that may be tried for it: where rows are lost, a later wave refills up to here."""
    kind: str = "wave"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthEntry:
    """The source has new images. Classes keep their labels and images their places: what is new comes after them."""

    source: str
    """Digest of the new manifest."""
    before: int
    """Images that the source had."""
    waves: int
    """Waves of the plan that came before."""
    shards: int
    """Shards that were published before."""
    classes: list[str]
    origin: str
    concepts: str = ""
    """Digest of the concepts in use from here on; empty without any."""
    learned: list[str] = field(default_factory=list)
    """Classes that these concepts know and earlier ones did not, or only by their words."""
    names: dict[str, str] = field(default_factory=dict)
    suffixes: list[str] = field(default_factory=list)
    kind: str = "growth"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationEntry:
    """From which distance on two images count as near-copies, per class, and what was measured for it.

    Stored, so that a run that goes on decides as it began, whatever has become of the real images' signatures.
    """

    record: dict[str, Any]
    kind: str = "near-copies"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One published file of `data/`, and what its rows are compared by, which lies beside the log."""

    name: str
    rows: int
    bytes: int
    sha256: str
    sidecar: str = ""
    sidecar_sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitEntry:
    """Chunks [first, last] of a wave are decided. Rows are counted from the first row of chunk `first`."""

    wave: int
    first: int
    last: int
    rows: int
    lost: dict[str, dict[str, str]] = field(default_factory=dict)
    """outcome (`rejected` or `poisoned`) -> row number -> reason. Every other row is kept."""
    kept_per_class: dict[str, int] = field(default_factory=dict)
    """Label -> kept rows in this entry."""
    shard: Shard | None = None
    fingerprints: list[str] = field(default_factory=list)
    """What computed the rows: device, dtype, attention, versions. More than one in a log: not reproducible."""
    kind: str = "commit"

    @property
    def kept(self) -> int:
        return self.rows - self.count("rejected") - self.count("poisoned")

    def count(self, outcome: str) -> int:
        return len(self.lost.get(outcome, {}))


Entry = OpenEntry | WaveEntry | GrowthEntry | CalibrationEntry | CommitEntry


def with_shard(entry: CommitEntry, shard: Shard) -> CommitEntry:
    return replace(entry, shard=shard)


# Made once: `json.dumps` would make one per call.
_JSON = json.JSONEncoder(sort_keys=True, ensure_ascii=False)


def encode(entry: Entry, writer: str = "") -> bytes:
    """An entry as it is written. `writer` names the driver: it knows its own entry again by it, should storage have
    taken it and the answer been lost on the way."""
    signed = {**{item.name: getattr(entry, item.name) for item in fields(entry)}, "writer": writer}
    if isinstance(entry, CommitEntry) and entry.shard is not None:
        signed["shard"] = asdict(entry.shard)
    # A line for each field: to be read by eye too, and a thousand classes do not make a thousand lines.
    lines = (f' "{name}": {_JSON.encode(value)}' for name, value in sorted(signed.items()))
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def decode(data: bytes, name: str) -> Entry:
    """Raises OutputError naming the file when it is damaged or written by another format's diffii."""
    try:
        found = json.loads(data)
        kind = found["kind"]
        found.pop("writer", None)
        if kind == "open":
            if found["format"] > LOG_FORMAT:
                raise OutputError(f"{name} has log format {found['format']}: update diffii to read this data set")
            if found["format"] < LOG_FORMAT:
                raise OutputError(
                    f"{name} has log format {found['format']}, from before the first release: this diffii reads "
                    f"{LOG_FORMAT}; read it with the version that wrote it, or make the data set anew"
                )
            return OpenEntry(**found)
        if kind == "wave":
            return WaveEntry(**found)
        if kind == "growth":
            return GrowthEntry(**found)
        if kind == "near-copies":
            return CalibrationEntry(**found)
        if kind == "commit":
            shard = found.pop("shard")
            return CommitEntry(**found, shard=Shard(**shard) if shard else None)
    except (ValueError, TypeError, KeyError) as error:
        raise OutputError(f"{name} is not a log entry of diffii ({error}): restore it from a copy") from error
    raise OutputError(f"{name} is a log entry of the unknown kind {kind!r}: update diffii to read this data set")
