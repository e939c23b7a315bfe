"""Are near-copies found, and nothing else? Copies are planted in real plans, and the judge labels the rest.

    python -m tests.bench.near_copies [--worlds 4] [--factor 7] [--planted 0.3] [--indexed 100000] [--out FILE]

Four worlds, each with other photos (5 of each of the 10 classes) and another seed. The embedded model makes `factor`
rows per photo, as `expand` would, in one process: 4 x 350 rows. A share of the rows is *planted*: such a row takes
parents and suffix of an earlier row of its class, its *origin*, drawn at random from those that are not planted, and
the origin's phi plus or minus 1 to 5 degrees. Rows that fail the image checks fall out, and the rest are decided in
plan order by `engine.near_copies` at the default thresholds, which are calibrated on the real photos alone.

The label does not come from what is measured. The *judge's distance* of two images is the Euclidean distance of the
judge's 128 body features at unit length. `radius` is the distance below which 95 % of planted rows lie from their
origins. A planted row is a copy by construction. Any other row counts as a copy if its judge's distance to some real
photo of its class, or to some accepted row of its class before it, is at most `radius`.

    recall     share of planted rows that are rejected
    precision  share of rejected rows, planted or not, that are copies by that label

Also printed: recall per degree of shift; unplanted rows that are copies by the label and were kept (`overlooked`); of
the unplanted rows that were rejected, how many degrees lie between their starting noise and the nearest accepted row's
under the same prompts (circles of one class meet in the parents they share, so there the plan itself makes copies, at
angles beyond those planted); milliseconds per image of the embedder; decisions per second against an index of
`indexed` accepted rows in one class.

One JSON object on standard output. It needs no network and no Ray.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

# Before torch is imported: another number of threads is another benchmark.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from actors.model import load
from diffii.backbone import Backbone
from diffii.circle import circle_point, gaussian
from diffii.denoise import denoise
from diffii.embedding import LITE0, Embedder
from diffii.features import perceptual_hash
from diffii.garments.data import export_pool
from diffii.garments.judge import load_judge
from diffii.image_checks import fault
from diffii.images import decode, fit
from diffii.invert import fixed_batches, invert
from diffii.signatures import Signatures
from diffii.weights import locate, weights_digest
from engine.copy_thresholds import calibrate
from engine.defaults import resolve
from engine.near_copies import NearCopies, Threshold
from engine.next_wave import first_wave
from engine.plan import Plan
from engine.row import Row
from engine.scan import read_source
from engine.settings import from_flat
from engine.source import iter_bytes
from engine.specs import model_spec, spacing
from tests.bench.dedup import decisions_per_second

SHOTS = 5
DEGREES = (1.0, 5.0)
COPY_QUANTILE = 0.95
"""Share of planted rows whose distance to their origin the label's radius covers."""


@dataclass(frozen=True)
class Images:
    """uint8 images (N, S, S, 3) with their labels (N,)."""

    pixels: np.ndarray
    labels: np.ndarray


class World:
    """A plan over photos of the pool, and the resident model that makes its rows."""

    def __init__(self, folder: Path, factor: float, seed: int, embedder: str = LITE0) -> None:
        export_pool(folder, SHOTS, seed)
        source = read_source(str(folder))
        settings = {"source.url": str(folder), "expansion.factor": factor, "expansion.seed": seed}
        config = resolve(from_flat({**settings, "dedup.embedder": embedder}), source.classes)
        self.plan = Plan(config, source, weights_digest(locate(config.backbone.model)))
        self.backbone: Backbone = load(model_spec(config))
        self.embedder = Embedder.load(embedder, config.generation.micro_batch, device="cpu")
        pixels = np.stack([fit(decode(data), self.backbone.image_size) for data in iter_bytes(source, source.images)])
        self.real = Images(pixels, np.array([image.label for image in source.images]))
        self._inversions = self._invert()

    def rows(self) -> list[Row]:
        wave = first_wave(self.plan)
        assert wave is not None
        return self.plan.rows(wave, 0, self.plan.row_count(wave))

    def make(self, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
        """uint8 images of the rows, and which of them pass the image checks: (N, S, S, 3), bool (N,)."""
        config, backbone = self.plan.config, self.backbone
        grid = backbone.grid(config.generation.steps, spacing(config))
        guidance, split = config.generation.guidance_scale, config.generation.split
        pixels, passed = [], []
        for indices, real in fixed_batches(len(rows), config.generation.micro_batch):
            batch = [rows[index] for index in indices]
            noise = torch.from_numpy(np.stack([self.start(row) for row in batch]))
            plain, suffixed = [row.plain_prompt for row in batch], [row.suffix_prompt for row in batch]
            images = backbone.decode(denoise(backbone, noise, plain, suffixed, grid, split, guidance))[:real]
            passed += [fault(image) is None for image in images]
            pixels.append((np.clip(images, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8))
        return np.concatenate(pixels), np.array(passed)

    def sign(self, images: Images) -> Signatures:
        hashes = [perceptual_hash(image) for image in images.pixels]
        embeddings = self.embedder.signatures(images.pixels)
        return Signatures.from_columns(images.labels.tolist(), hashes, [row.tobytes() for row in embeddings])

    def thresholds(self, real: Signatures) -> list[Threshold]:
        dedup = self.plan.config.dedup
        shares = (Fraction(repr(dedup.alone)), Fraction(repr(dedup.with_hash)))
        return list(calibrate(real, len(self.plan.source.classes), *shares).thresholds)

    def start(self, row: Row) -> np.ndarray:
        """The noise that a row is denoised from: float32 (C, H, W)."""
        a, b = self._inversions[row.inversion_a], self._inversions[row.inversion_b]
        return circle_point(a, b, row.phi, gaussian(row.seed, a.shape), self.plan.config.inversion.norm)

    def _invert(self) -> dict[str, np.ndarray]:
        config, backbone = self.plan.config, self.backbone
        grid = backbone.grid(config.inversion.steps, spacing(config))
        wanted = self.plan.inversions()
        found: dict[str, np.ndarray] = {}
        for indices, real in fixed_batches(len(wanted), config.inversion.micro_batch):
            latents = backbone.encode(self.real.pixels[indices])
            inverted = invert(backbone, latents, [wanted[index].prompt for index in indices], grid)
            found |= {wanted[indices[row]].key: inverted[row].cpu().numpy() for row in range(real)}
        return found


# -- planting and labelling -------------------------------------------------------------------------------------------


def plant(rows: Sequence[Row], share: float, seed: int) -> tuple[list[Row], dict[int, tuple[int, float]]]:
    """The rows with a share of them planted, and for each planted one (origin, degrees of shift)."""
    rng = np.random.default_rng(seed)
    planted = set(rng.choice(len(rows), round(share * len(rows)), replace=False).tolist())
    rows, plants = list(rows), dict[int, tuple[int, float]]()
    earlier: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        origins = earlier.setdefault(row.label, [])
        if index not in planted or not origins:
            origins.append(index)
            continue
        origin = origins[int(rng.integers(len(origins)))]
        degrees = float(rng.uniform(*DEGREES))
        phi = rows[origin].phi + math.radians(degrees) * float(rng.choice([-1, 1]))
        rows[index] = replace(rows[origin], sample_id=row.sample_id, ordinal=row.ordinal, seed=row.seed, phi=phi)
        plants[index] = (origin, degrees)
    return rows, plants


@torch.inference_mode()
def judge_features(pixels: np.ndarray) -> np.ndarray:
    """The judge's body features at unit length: float64 (N, 128)."""
    network = load_judge()
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    features = torch.cat([network.body(part) for part in x.split(256)]).double().numpy()
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def nearest_before(
    features: np.ndarray, labels: np.ndarray, kept: np.ndarray, real: np.ndarray, real_labels: np.ndarray
) -> np.ndarray:
    """For each row the judge's distance to the nearest real image or earlier kept row of its class: float64 (N,)."""
    found = np.empty(len(features))
    for index, (row, label) in enumerate(zip(features, labels, strict=True)):
        before = features[:index][kept[:index] & (labels[:index] == label)]
        shown = np.concatenate([real[real_labels == label], before])
        found[index] = np.sqrt(np.square(shown - row).sum(axis=1)).min()
    return found


@dataclass(frozen=True)
class Observed:
    """What became of the rows of one world: arrays of one entry per row, or per planted row where it says so."""

    planted: np.ndarray
    other: np.ndarray
    """Neither planted nor thrown out by the image checks."""
    rejected: np.ndarray
    nearest: np.ndarray
    """The judge's distance to the nearest real photo or earlier accepted row of the class."""
    start_degrees: np.ndarray
    """Angle to the starting noise of the nearest earlier accepted row under the same prompts; inf without one."""
    shift_degrees: np.ndarray
    """Per planted row."""
    shift_distance: np.ndarray
    """Per planted row: the judge's distance to its origin."""
    seconds_making: float
    seconds_signing: float


def observe(world: World, share: float) -> Observed:
    """Plant, make, sign and decide the rows of one world."""
    rows, plants = plant(world.rows(), share, world.plan.config.expansion.seed)
    began = time.perf_counter()
    pixels, passed = world.make(rows)
    made = time.perf_counter()
    labels = np.array([row.label for row in rows])
    signatures = world.sign(Images(pixels, labels))
    signed = time.perf_counter()
    real = world.sign(world.real)
    index = NearCopies(world.thresholds(real), world.plan.config.dedup.hash_radius, real)
    rejected = np.zeros(len(rows), bool)
    good = np.flatnonzero(passed)
    rejected[good] = [reason is not None for reason in index.decide(signatures.take(good))]
    features, real_features = judge_features(pixels), judge_features(world.real.pixels)
    pairs = [(row, origin, degrees) for row, (origin, degrees) in plants.items() if passed[row] and passed[origin]]
    planted = np.zeros(len(rows), bool)
    planted[[row for row, _, _ in pairs]] = True
    accepted = passed & ~rejected
    return Observed(
        planted=planted,
        other=passed & ~np.isin(np.arange(len(rows)), list(plants)),
        rejected=rejected,
        nearest=nearest_before(features, labels, accepted, real_features, world.real.labels),
        start_degrees=start_angles(world, rows, accepted),
        shift_degrees=np.array([degrees for _, _, degrees in sorted(pairs)]),
        shift_distance=np.array([np.linalg.norm(features[row] - features[origin]) for row, origin, _ in sorted(pairs)]),
        seconds_making=made - began,
        seconds_signing=signed - made,
    )


def start_angles(world: World, rows: Sequence[Row], accepted: np.ndarray) -> np.ndarray:
    """For each row the degrees between its starting noise and the nearest earlier accepted one of the same prompts."""
    starts = np.stack([world.start(row).ravel() for row in rows]).astype(np.float64)
    starts /= np.linalg.norm(starts, axis=1, keepdims=True)
    found = np.full(len(rows), np.inf)
    before: dict[tuple[int, str], list[int]] = {}
    for index, row in enumerate(rows):
        same = before.setdefault((row.label, row.suffix), [])
        if same:
            found[index] = math.degrees(math.acos(min(1.0, float((starts[same] @ starts[index]).max()))))
        if accepted[index]:
            same.append(index)
    return found


def measures(worlds: Sequence[Observed]) -> dict[str, Any]:
    """Recall and precision over all worlds, as the module's docstring defines them."""

    def together(name: str) -> np.ndarray:
        return np.concatenate([getattr(world, name) for world in worlds])

    planted, other, rejected = together("planted"), together("other"), together("rejected")
    shift, caught = together("shift_degrees"), rejected[planted]
    radius = float(np.quantile(together("shift_distance"), COPY_QUANTILE))
    near = together("nearest") <= radius
    called, wrong = rejected & (planted | other), rejected & other
    low, high = (int(degrees) for degrees in DEGREES)
    return {
        "rows": len(rejected),
        "planted": int(planted.sum()),
        "others": int(other.sum()),
        "recall": _share(caught),
        "precision": _share((planted | near)[called]),
        "recall_by_shift": {
            f"{k} to {k + 1} degrees": _share(caught[(shift >= k) & (shift < k + 1)]) for k in range(low, high)
        },
        "judge_radius": round(radius, 4),
        "others_rejected": int(wrong.sum()),
        "others_rejected_that_are_copies": int((wrong & near).sum()),
        "others_rejected_median_start_degrees": round(float(np.median(together("start_degrees")[wrong])), 1)
        if wrong.any()
        else None,
        "overlooked": int((other & ~rejected & near).sum()),
        "seconds_making": round(sum(world.seconds_making for world in worlds), 1),
        "embedder_and_hash_ms_per_image": round(
            1000 * sum(world.seconds_signing for world in worlds) / len(rejected), 2
        ),
    }


def _share(found: Any) -> float:
    return round(float(np.mean(found)), 4) if len(found) else float("nan")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.near_copies", description=__doc__)
    parser.add_argument("--worlds", type=int, default=4, help="each with a seed of its own: 0, 1, ...")
    parser.add_argument("--factor", type=float, default=7.0)
    parser.add_argument("--planted", type=float, default=0.3)
    parser.add_argument("--indexed", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    began = time.perf_counter()
    found: dict[str, Any] = {
        "command": " ".join(["python -m tests.bench.near_copies", *(arguments or sys.argv[1:])]),
        "environment": {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "decisions_per_second": {
            f"calls of {rows} rows at {options.indexed} accepted": decisions_per_second(options.indexed, rows)
            for rows in (64, 256)
        },
    }
    worlds: list[Observed] = []
    for seed in range(options.worlds):
        with tempfile.TemporaryDirectory() as folder:
            worlds.append(observe(World(Path(folder), options.factor, seed), options.planted))
        print(f"world {seed}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    found["planted_copies"] = measures(worlds)
    found["seconds"] = round(time.perf_counter() - began, 1)
    text = json.dumps(found, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
