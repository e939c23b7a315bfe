"""`python -m diffii.garments.build`: make everything under `diffii/garments/weights/` again, from the photos on.

Takes about an hour and a half on two cores. Needs Debian's package `dataset-fashion-mnist`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch

from diffii.garments.build import autoencoder, denoiser, judge
from diffii.garments.build.photo_files import write_photos
from diffii.garments.build.photos import DEBIAN_DIR, first_per_class, load, next_per_class, split
from diffii.garments.build.quality import measure
from diffii.garments.build.ship import ship_model

STEPS = ("photos", "judge", "autoencoder", "denoiser", "ship", "quality")
POOL_PER_CLASS, VALIDATION_PER_CLASS, HELDOUT_PER_CLASS = 100, 30, 200


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m diffii.garments.build", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("garments-build"), help="where trainings are kept")
    parser.add_argument("--out", type=Path, default=Path("garments-weights"), help="what would be shipped")
    parser.add_argument("--photos", type=Path, default=DEBIAN_DIR, help="folder of the four IDX files")
    parser.add_argument("--threads", type=int, default=1, help="more than one changes the weights' last bits")
    parser.add_argument("steps", nargs="*", choices=(*STEPS, []), help="some of the steps; all by default")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    work, out = options.work, options.out
    work.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    steps = options.steps or STEPS
    pretraining, pool = split(load("train", options.photos))
    heldout = load("t10k", options.photos)
    if "photos" in steps:
        write_photos(first_per_class(pool, POOL_PER_CLASS), out / "pool.parquet")
        write_photos(next_per_class(pool, POOL_PER_CLASS, VALIDATION_PER_CLASS), out / "validation.parquet")
        write_photos(first_per_class(heldout, HELDOUT_PER_CLASS), out / "heldout.parquet")
    if "judge" in steps:
        print(json.dumps(judge.train(pretraining, heldout, work / "judge.safetensors"), indent=1))
        shutil.copy(work / "judge.safetensors", out)
    if "autoencoder" in steps:
        autoencoder.train(pretraining, work / "vae")
    if "denoiser" in steps:
        denoiser.train(pretraining, work / "vae", work / "model")
    if "ship" in steps:
        ship_model(work / "model", out / "model")
    if "quality" in steps:
        found = measure(out / "model", out / "judge.safetensors", work / "quality.png")
        (work / "quality.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
