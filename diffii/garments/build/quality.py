"""How good the embedded model is: does the judge see the garment and the context that the prompt names?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffii.backbone import Backbone
from diffii.circle import gaussian
from diffii.denoise import denoise
from diffii.garments.catalog import COARSE, CONTEXTS, caption
from diffii.garments.judge import judge, load_judge
from diffii.hashing import seed64

SAMPLES = 500
GUIDANCE = 3.0
STEPS = 25
BATCH = 50


def measure(model: Path, judge_weights: Path, sheet: Path | None = None) -> dict[str, float]:
    """Percent of samples that show the prompted coarse class and the prompted context; every pair equally often.

    Fresh noise, guidance 3, 25 steps on the matched grid. `sheet` is where a picture of 100 of them goes.
    """
    backbone = Backbone.load(str(model), device="cpu")
    grid = backbone.grid(STEPS, "matched")
    names = list(CONTEXTS)
    wanted = [(index % len(COARSE), index // len(COARSE) % len(names)) for index in range(SAMPLES)]
    images: list[np.ndarray] = []
    for start in range(0, SAMPLES, BATCH):
        part = wanted[start : start + BATCH]
        noise = np.stack([gaussian(seed64("quality", start + k), backbone.latent_shape) for k in range(len(part))])
        prompts = [caption(COARSE[c], names[x]) for c, x in part]
        latents = denoise(backbone, torch.from_numpy(noise), prompts, prompts, grid, 1.0, GUIDANCE)
        images.append((np.clip(backbone.decode(latents), 0, 1) * 255 + 0.5).astype(np.uint8))
    pixels = np.concatenate(images)
    verdict = judge(load_judge(judge_weights), pixels)
    coarse, context = (np.array(column) for column in zip(*wanted, strict=True))
    named, placed = verdict.coarse.argmax(1) == coarse, verdict.context.argmax(1) == context
    result = {"coarse": 100 * float(named.mean()), "context": 100 * float(placed.mean())}
    result |= {name: 100 * float(named[coarse == k].mean()) for k, name in enumerate(COARSE)}
    result |= {name: 100 * float(placed[context == k].mean()) for k, name in enumerate(names)}
    if sheet is not None:
        rows = pixels[:100].reshape(4, 25, *pixels.shape[1:])
        picture = rows.transpose(0, 2, 1, 3, 4).reshape(4 * 32, 25 * 32, 3)
        Image.fromarray(picture).resize((25 * 96, 4 * 96), Image.Resampling.NEAREST).save(sheet)
    return result
