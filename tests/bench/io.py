"""Encoding and publishing on one core: `python -m tests.bench.io`; JSON out.

Images are what diffii makes and users have: at 32 px photos of the embedded data set, at other sizes those enlarged,
with a little noise, since smooth enlargements compress as no photo does. `bare` is a plain write of the same bytes,
without fsync and exclusive creation, in the same run.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffii.dataset import layout, staged
from diffii.dataset.storage import Storage
from diffii.garments.data import export_pool
from diffii.hashing import sha256
from diffii.images import decode, encode
from engine.pack import PackOrder, pack

NOISE = 4.0
"""Standard deviation, of 255."""


def pictures(size: int, count: int) -> list[np.ndarray]:
    """uint8 (size, size, 3)."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        export_pool(Path(folder), 5)
        photos = [decode(path.read_bytes()) for path in sorted(Path(folder).rglob("*.png"))]
    made = []
    for number in range(count):
        photo = photos[number % len(photos)]
        pixels = np.asarray(photo.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)
        if size > photo.width:
            pixels = pixels + rng.normal(0.0, NOISE, pixels.shape)
        made.append(np.clip(pixels, 0, 255).astype(np.uint8))
    return made


def lossy_webp(pixels: np.ndarray) -> bytes:
    """Not an encoding of diffii's: what its lossless one is compared with."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", method=0, quality=90)
    return buffer.getvalue()


ENCODERS: dict[str, Callable[[np.ndarray], bytes]] = {
    "png": lambda pixels: encode(pixels, "png"),
    "webp lossless method 0": lambda pixels: encode(pixels, "webp"),
    "webp quality 90 method 0": lossy_webp,
    "jpeg quality 95": lambda pixels: encode(pixels, "jpeg"),
}


def timed(call: Callable[[Any], Any], items: Iterable[Any]) -> tuple[list[Any], float]:
    began = time.perf_counter()
    results = [call(item) for item in items]
    return results, time.perf_counter() - began


def encoding(images: list[np.ndarray], seconds: float) -> tuple[dict[str, Any], list[bytes]]:
    """Per encoder images/s and sizes; the PNG files."""
    found: dict[str, Any] = {}
    pngs: list[bytes] = []
    for name, encoder in ENCODERS.items():
        encoder(images[0])
        times: list[float] = []
        data: list[bytes] = []
        while sum(times) < seconds:
            data, spent = timed(encoder, images)
            times.append(spent)
        raw, size = sum(image.nbytes for image in images), sum(map(len, data))
        median = float(np.median(times))
        found[name] = {
            "images_per_second": round(len(images) / median, 1),
            "raw_mb_per_second": round(raw / median / 1e6, 1),
            "kb_per_image": round(size / len(images) / 1e3, 2),
        }
        pngs = pngs or data
    return found, pngs


def publishing(data: list[bytes], chunk: int, chunks: int) -> dict[str, Any]:
    """Chunks staged, then packed into one shard: seconds beside a plain write of the same files."""
    with tempfile.TemporaryDirectory() as name:
        storage, bare = Storage(name), Path(name) / "bare"
        bare.mkdir()
        files = [staged.encode(rows(data, chunk, number), "bench") for number in range(chunks)]
        _, encoded = timed(lambda number: staged.encode(rows(data, chunk, number), "bench"), range(chunks))
        _, plain = timed(lambda number: (bare / str(number)).write_bytes(files[number]), range(chunks))
        _, put = timed(
            lambda number: storage.put_once(layout.staged_chunk(0, number), files[number]),
            range(chunks),
        )
        order = PackOrder(
            url=name, index=0, wave=0, first=0, last=chunks - 1, lost_rows=(), classes=("one",), extension="png"
        )
        (shard,), packed = timed(pack, [order])
    images, size = chunk * chunks, sum(map(len, files))

    def speed(spent: float) -> dict[str, float]:
        return {"images_per_second": round(images / spent, 1), "mb_per_second": round(size / spent / 1e6, 1)}

    return {
        "images": images,
        "shard_mb": round(shard.bytes / 1e6, 2),
        "bare_write": speed(plain),
        "stage_encode": speed(encoded),
        "stage_put_once": speed(put),
        "pack": speed(packed),
        "all": speed(encoded + put + packed),
    }


def rows(data: list[bytes], chunk: int, number: int) -> list[dict[str, Any]]:
    made = []
    for row in range(chunk):
        name = sha256(f"{number} {row}".encode())
        image = data[(number * chunk + row) % len(data)]
        made.append(
            {
                "sample_id": name[:32],
                "outcome": staged.KEPT,
                "reason": "",
                "label": 0,
                "ordinal": number * chunk + row,
                "image_sha256": sha256(image),
                "phash": bytes(8),
                "embedding": bytes(64),
                "phi": 1.0,
                "theta": 1.5,
                "seed": number,
                "parent_a": name,
                "parent_b": name,
                "suffix": "on grass",
                "recipe": name * 12,
                "image": image,
            }
        )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 512])
    parser.add_argument("--images", type=int, default=32, help="different pictures to be encoded")
    parser.add_argument("--seconds", type=float, default=3.0, help="per encoder, at least")
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--chunks", type=int, default=16)
    given = parser.parse_args()
    found: dict[str, Any] = {
        "machine": f"{platform.machine()}, one thread, load {os.getloadavg()[0]:.1f}",
        "temporary_folder": tempfile.gettempdir(),
    }
    for size in given.sizes:
        encoded, pngs = encoding(pictures(size, given.images), given.seconds)
        found[f"{size} px"] = {"encode": encoded, "publish": publishing(pngs, given.chunk, given.chunks)}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
