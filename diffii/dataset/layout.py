"""Names of the files of one data set, relative to its URL.

No name below `_diffii` holds a split word (train, test, val, dev, eval): `datasets.load_dataset` would take the file
for a split of that name.
"""

from __future__ import annotations

OWN = "_diffii"
LOG = f"{OWN}/log"
STAGING = f"{OWN}/staging"
ATTEMPTS = f"{OWN}/attempts"
INVERSIONS = f"{OWN}/inversions"
SIGNATURES = f"{OWN}/signatures"
DATA = "data"
CARD = "README.md"
CONTACT_SHEET = "contact-sheet.png"


def log_entry(version: int) -> str:
    return f"{LOG}/{version:012d}.json"


def source_manifest(digest: str) -> str:
    return f"{OWN}/source-{digest[:16]}.parquet"


def staged_chunk(wave: int, chunk: int) -> str:
    return f"{STAGING}/wave-{wave:04d}/chunk-{chunk:010d}.parquet"


def staged_wave(wave: int) -> str:
    return f"{STAGING}/wave-{wave:04d}"


def attempt(wave: int, chunk: int, number: int) -> str:
    """Entry `number` of the journal of a chunk that is being made."""
    return f"{attempts_wave(wave)}/chunk-{chunk:010d}-{number:04d}.json"


def attempts_wave(wave: int) -> str:
    return f"{ATTEMPTS}/wave-{wave:04d}"


def attempt_chunk(name: str) -> int | None:
    """The chunk that a file in a folder of `attempts_wave` is about; None when it is none of ours."""
    chunk, _, number = name.removeprefix("chunk-").removesuffix(".json").partition("-")
    return int(chunk) if chunk.isdigit() and number.isdigit() else None


def inversion(key: str) -> str:
    return f"{INVERSIONS}/{key[:2]}/{key}.safetensors"


def signature(key: str) -> str:
    return f"{SIGNATURES}/{key[:2]}/{key}.bin"


def shard(index: int) -> str:
    return f"{DATA}/train-{index:05d}.parquet"
