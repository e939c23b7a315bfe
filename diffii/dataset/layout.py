"""Names of the files of one data set, relative to its URL.

No name below `_diffii` holds a split word (train, test, val, dev, eval): `datasets.load_dataset` would take the file
for a split of that name.
"""

from __future__ import annotations

OWN = "_diffii"
LOG = f"{OWN}/log"
STAGING = f"{OWN}/staging"
ATTEMPTS = f"{OWN}/attempts"
ATTEMPTS_IMAGES = f"{ATTEMPTS}/images"
INVERSIONS = f"{OWN}/inversions"
SIGNATURES = f"{OWN}/signatures"
CONTEXTS = f"{OWN}/contexts"
CONCEPTS = f"{OWN}/concepts"
CARDS = f"{OWN}/cards"
SIDECARS = f"{OWN}/shards"
HEARTBEAT = f"{OWN}/driver.json"
LEAKS = f"{OWN}/leaks.parquet"
SKIPPED = f"{OWN}/skipped.jsonl"
"""Files of the source that are not used, and why; and what is to be known of some that are."""
DATA = "data"
REPORT = f"{OWN}/report"
REPORT_PAGE = f"{REPORT}/index.html"
REPORT_FIGURES = f"{REPORT}/report.json"
CARD = "README.md"
CONTACT_SHEET = "contact-sheet.png"
DEMO_SOURCE = "source"
"""Where the demo puts its labelled images, beside the data that come of them."""


LOG_FOLDER = 10_000
"""Log entries in a folder. Finding the newest lists one folder, not a million names."""
LOG_PAGE = 100
"""Log entries in a small checkpoint; one over a whole folder takes the place of its hundred."""


def log_folder(version: int) -> str:
    return f"{LOG}/{version // LOG_FOLDER:08d}"


def log_entry(version: int) -> str:
    return f"{log_folder(version)}/{version:012d}.json"


def log_checkpoint(first: int) -> str:
    """The checkpoint over the `LOG_PAGE` entries from `first` on."""
    return f"{log_folder(first)}/{first:012d}.parquet"


def log_folder_checkpoint(first: int) -> str:
    """The checkpoint over the whole folder of entry `first`."""
    return f"{log_folder(first)}.parquet"


def source_manifest(digest: str) -> str:
    return f"{OWN}/source-{digest[:16]}.parquet"


def staged_chunk(wave: int, chunk: int) -> str:
    return f"{STAGING}/wave-{wave:04d}/chunk-{chunk:010d}.parquet"


def staged_wave(wave: int) -> str:
    return f"{STAGING}/wave-{wave:04d}"


def wave_of(name: str) -> int | None:
    """The wave whose folder a staged chunk or a journal lies in; None when it lies in none."""
    folder = name.rpartition("/")[0].rpartition("/")[2].removeprefix("wave-")
    return int(folder) if folder.isdigit() else None


def staged_number(name: str) -> int | None:
    """The chunk that a file in a folder of `staged_wave` holds; None when it is none of ours."""
    chunk = name.removeprefix("chunk-").removesuffix(".parquet")
    return int(chunk) if chunk.isdigit() else None


def attempt(journal: str, number: int) -> str:
    """Entry `number` of a journal of tries (`chunk_journal`, `image_journal`)."""
    return f"{journal}-{number:04d}.json"


def chunk_journal(wave: int, chunk: int) -> str:
    """The journal of a chunk that is being made, without the entries' numbers."""
    return f"{attempts_wave(wave)}/chunk-{chunk:010d}"


def image_journal(step: str, batch: str) -> str:
    """The journal of a batch of real images in one step of the inversion stage, without the entries' numbers."""
    return f"{ATTEMPTS_IMAGES}/{step}-{batch}"


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


def image_batch(name: str) -> str:
    """The batch that a file in `ATTEMPTS_IMAGES` is about; empty when it is none of ours."""
    parts = name.split("-")
    return parts[1] if len(parts) == 3 else ""


def context(key: str) -> str:
    """What one real image shows besides its subject."""
    return f"{CONTEXTS}/{key[:2]}/{key}.json"


def condensed(key: str) -> str:
    """What a service made of many captions: a text file with one suffix a line."""
    return f"{CONTEXTS}/condensed/{key[:40]}.txt"


def set_aside(name: str) -> str:
    """Beside where an `inversion` or a `signature` would be: why there is none and will be none."""
    return f"{name.rpartition('.')[0]}.failed.json"


def sidecar(index: int) -> str:
    """What is compared of the rows of shard `index`: ids, labels, hashes, embeddings; no images."""
    return f"{SIDECARS}/{index:05d}.parquet"


def shard(index: int) -> str:
    return f"{DATA}/train-{index:05d}.parquet"
