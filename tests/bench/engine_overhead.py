"""The whole engine against the bare batched loop, one actor: `python -m tests.bench.engine_overhead`; JSON out.

The same rows by the same arithmetic of the embedded model on one CPU thread: the loop loads the model once, denoises
batch after batch, encodes, and writes files. The engine does it through Ray, with journals, staging, near-copies off,
packing and the log, and must end with the same images. The loop makes one half of the rows before the engine runs and
one after it, so that a machine that gets slower meanwhile slows both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Before torch is imported: another number of threads is another benchmark.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from actors.inverter import read_inversion
from actors.model import load
from cluster.local import local_ray
from diffii.circle import circle_point, gaussian
from diffii.denoise import denoise
from diffii.garments.data import export_pool
from diffii.hashing import sha256
from diffii.images import encode
from diffii.invert import fixed_batches
from engine.config import Config
from engine.counters import Counters
from engine.expand import made_in_ray, packed_in_ray, pool_of
from engine.formats.parquet import read_kept
from engine.inversions import invert_missing
from engine.prepare import prepare
from engine.progress import Silent
from engine.run import begin
from engine.settings import from_flat
from engine.specs import model_spec, spacing
from engine.waves import run_waves
from tests.engine.sources import PLAIN

SHOTS = 5


def config(folder: Path, images: int, steps: int) -> Config:
    settings = {
        "source.url": str(folder / "source"),
        "output.url": str(folder / "out"),
        "expansion.factor": images / (10 * SHOTS),
        "generation.steps": steps,
        "inversion.steps": steps,
        "actors.max": 1,
    }
    return from_flat({**PLAIN, **settings})


def bare(settings: Config, first: int, last: int, out: Path) -> dict[str, Any]:
    """Rows [first, last): seconds to load the model and of the loop after its first answer, and the images' hashes."""
    run = prepare(settings)
    setting, rows = run.config.generation, run.plan.rows(run.waves[0], first, last)
    began = time.perf_counter()
    backbone = load(model_spec(run.config))
    grid = backbone.grid(setting.steps, spacing(run.config))
    inversions = {
        key: read_inversion(run.storage, key)[1] for row in rows for key in (row.inversion_a, row.inversion_b)
    }
    noise = torch.zeros(setting.micro_batch, *inversions[rows[0].inversion_a].shape)
    words = [rows[0].plain_prompt] * setting.micro_batch
    denoise(backbone, noise, words, words, backbone.grid(1, spacing(run.config)), setting.split, setting.guidance_scale)
    loaded = time.perf_counter()
    hashes: dict[str, str] = {}
    for indices, real in fixed_batches(len(rows), setting.micro_batch):
        batch = [rows[index] for index in indices]
        starts = []
        for row in batch:
            a, b = inversions[row.inversion_a], inversions[row.inversion_b]
            starts.append(circle_point(a, b, row.phi, gaussian(row.seed, a.shape), run.config.inversion.norm))
        plain, suffixed = [row.plain_prompt for row in batch], [row.suffix_prompt for row in batch]
        latents = denoise(
            backbone, torch.from_numpy(np.stack(starts)), plain, suffixed, grid, setting.split, setting.guidance_scale
        )
        for row, image in zip(batch[:real], backbone.decode(latents)[:real], strict=True):
            data = encode((np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8), run.config.output.encoding)
            (out / f"{row.sample_id}.png").write_bytes(data)
            hashes[row.sample_id] = sha256(data)
    return {"load": loaded - began, "loop": time.perf_counter() - loaded, "hashes": hashes}


def whole(settings: Config) -> dict[str, Any]:
    """The engine on a run whose images are inverted: seconds, and what its counters say."""
    run, counters = prepare(settings), Counters()
    began = time.perf_counter()
    with local_ray(actors=1):
        started = time.perf_counter()
        maker = made_in_ray(run, pool_of(run.config), Silent())
        run_waves(run, maker, packed_in_ray(counters), Silent(), None, counters)
        ended = time.perf_counter()
    images = [item for shard in run.history.shards for item in read_kept(run.storage.read(shard.name))]

    def spent(state: str) -> float:
        return counters.value("diffii_actor_seconds_total", state=state)

    return {
        "ray": started - began,
        "wave": ended - started,
        "busy": spent("busy"),
        "idle": spent("idle"),
        "hashes": {name: sha256(data) for name, data in images},
    }


def ready(settings: Config) -> None:
    """Invert the source, so that both find it done."""
    run = prepare(settings)
    begin(run)
    with local_ray(actors=1):
        invert_missing(run, pool_of(run.config), Silent())


def compare(images: int, steps: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bare").mkdir()
        export_pool(folder / "source", SHOTS)
        common = ["--folder", name, "--images", str(images), "--steps", str(steps)]
        _part(*common, "--part", "ready")
        halves = [_part(*common, "--part", "bare", "--first", "0", "--last", str(images // 2))]
        engine = _part(*common, "--part", "whole")
        halves.append(_part(*common, "--part", "bare", "--first", str(images // 2), "--last", str(images)))
    loop = sum(half["loop"] for half in halves)
    hashes = {**halves[0]["hashes"], **halves[1]["hashes"]}
    steady = engine["busy"] + engine["idle"]
    return {
        "images": images,
        "steps": steps,
        "same_images": hashes == engine["hashes"],
        "bare_ms_per_image": round(1000 * loop / images, 2),
        "bare_halves_ms_per_image": [round(2000 * half["loop"] / images, 2) for half in halves],
        "engine_ms_per_image": round(1000 * steady / images, 2),
        "overhead": round(steady / loop - 1, 4),
        "of_which_actor_idle": round(engine["idle"] / loop, 4),
        "fixed_seconds": {
            "bare_load": round(sum(half["load"] for half in halves) / 2, 1),
            "engine_ray": round(engine["ray"], 1),
            "engine_load_and_last_commit": round(engine["wave"] - steady, 1),
        },
    }


def _part(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.engine_overhead", *arguments]
    made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(made.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=1600, help="a multiple of 100")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--folder", type=Path, help="used by the command itself, as are the following")
    parser.add_argument("--part", choices=["ready", "bare", "whole"])
    parser.add_argument("--first", type=int)
    parser.add_argument("--last", type=int)
    given = parser.parse_args()
    if given.images % (20 * SHOTS):
        parser.error(f"--images {given.images}: give a multiple of {20 * SHOTS}")
    if given.part is None:
        print(json.dumps(compare(given.images, given.steps)))
        return
    settings = config(given.folder, given.images, given.steps)
    if given.part == "bare":
        print(json.dumps(bare(settings, given.first, given.last, given.folder / "bare")))
    elif given.part == "whole":
        print(json.dumps(whole(settings)))
    else:
        print(json.dumps(ready(settings)))


if __name__ == "__main__":
    main()
