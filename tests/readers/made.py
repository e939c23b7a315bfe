"""A data set with names that hurt, made without a model: the plan, the log, the shards and the images are real ones."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from diffii.dataset import layout, log, staged
from diffii.dataset.history import read_log
from diffii.dataset.storage import Storage
from diffii.features import perceptual_hash
from diffii.hashing import sha256
from diffii.images import encode
from engine.plan import Plan
from engine.progress import Silent
from engine.row import Row
from engine.run import Run, begin
from engine.scan import read_source
from engine.settings import from_flat
from engine.waves import run_waves
from tests.engine.imaginary_run import SETTINGS, packed_here

CLASSES = ["bugatti_veyron_16.4", "a/b", "été", ".", "Bag", "bag", "con", "..", "x" * 300, "a%2Fb", " ", "*?[!]"]
SIZE = 8


def pixels(name: str) -> np.ndarray:
    """uint8 (8, 8, 3), for any text."""
    return np.random.default_rng(int(sha256(name.encode())[:8], 16)).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def real_images(place: Path, classes: Sequence[str] = CLASSES, shots: int = 2) -> Path:
    """Labelled images as Parquet, which can hold any class name."""
    made = [(encode(pixels(f"{label} {k}"), "png"), label) for label in range(len(classes)) for k in range(shots)]
    features = {"image": {"_type": "Image"}, "label": {"names": list(classes), "_type": "ClassLabel"}}
    table = pa.table(
        {
            "image": [{"bytes": data, "path": f"{n}.png"} for n, (data, _) in enumerate(made)],
            "label": pa.array([label for _, label in made], pa.int64()),
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    place.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, place / "train.parquet")
    return place


def a_run(url: str, source: Path, **more: Any) -> Run:
    values = {key.replace("__", "."): value for key, value in more.items()}
    config = from_flat(
        {
            **SETTINGS,
            "source.url": str(source),
            "output.url": url,
            "output.shard_rows": 10,
            "expansion.factor": 2,
            **values,
        }
    )
    plan, storage = Plan(config, read_source(str(source)), "00" * 32), Storage(url)
    return Run(storage, config, plan.source, plan, read_log(storage))


def expanded(
    url: str,
    source: Path,
    until: int | None = None,
    run: Run | None = None,
    follow: Callable[[log.CommitEntry], None] = lambda entry: None,
    **more: Any,
) -> Run:
    """A data set that is complete, or stops once `until` shards are committed."""
    run = run or a_run(url, source, **more)
    begin(run)

    def make(wave: log.WaveEntry, chunks: list[int]) -> Iterator[dict[str, Any]]:
        for chunk in chunks:
            if until is not None and len(run.history.shards) >= until:
                raise Stopped
            rows = [_made(row, run) for row in run.plan.chunk(wave, chunk)]
            run.storage.put_once(layout.staged_chunk(wave.wave, chunk), staged.encode(rows, "imaginary"))
            yield {"chunk": chunk, "rows": len(rows), "lost": 0}

    with contextlib.suppress(Stopped):
        run_waves(run, make, packed_here, Silent(), None, follow=follow)
    return run


class Stopped(Exception):
    pass


def _made(row: Row, run: Run) -> dict[str, Any]:
    output = run.config.output
    made = pixels(row.sample_id)
    image = encode(made, output.encoding, output.quality, output.mark)
    copied = ("sample_id", "label", "ordinal", "phi", "seed", "parent_a", "parent_b", "suffix", "recipe")
    return {
        **{name: getattr(row, name) for name in copied},
        "outcome": staged.KEPT,
        "reason": "",
        "image_sha256": sha256(image),
        "phash": perceptual_hash(made),
        "embedding": None,
        "theta": 1.5,
        "image": image,
    }


@dataclass(frozen=True)
class Seen:
    """What a reader gave back of one row, without any code of ours."""

    sample_id: str
    label: int
    class_name: str
    is_synthetic: bool
    pixels: bytes


def expected(run: Run, real: bool = False) -> list[Seen]:
    """What is to be seen of a whole data set, sorted by id."""
    rows = [run.plan.row(label, k) for label, kept in enumerate(run.kept()) for k in range(kept)]
    names = run.source.classes
    seen = [Seen(r.sample_id, r.label, names[r.label], True, pixels(r.sample_id).tobytes()) for r in rows]
    if real:
        for label, images in enumerate(run.source.by_class):
            of = {sha256(encode(pixels(f"{label} {k}"), "png")): k for k in range(len(images))}
            seen += [
                Seen(i.sha256[:32], label, names[label], False, pixels(f"{label} {of[i.sha256]}").tobytes())
                for i in images
            ]
    return sorted(seen, key=lambda row: row.sample_id)


def files(place: Path) -> dict[str, bytes]:
    """Every file below a folder but our own notes, by name."""
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file() and "_diffii" not in path.parts
    }


def rgb(data: bytes | Image.Image) -> bytes:
    image = data if isinstance(data, Image.Image) else Image.open(io.BytesIO(data))
    return np.asarray(image.convert("RGB")).tobytes()
