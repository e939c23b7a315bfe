"""What diffii is measured against: the published code's loop, and what one writes with diffusers in an evening.

Both are written from the method's description over diffusers' own pipeline and scheduler, and make the rows of a plan
of ours, so that all three end with the same images. The first works as the published code does: the model is loaded
anew for every class, images and prompts go through it one at a time. The second keeps the model and fills batches.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from diffii.circle import circle_point, gaussian
from engine.row import Row
from engine.run import Run

Place = tuple[int, int]
"""A row's label and ordinal."""


@dataclass(frozen=True)
class Picture:
    """A real image: uint8 (S, S, 3)."""

    pixels: np.ndarray
    label: int
    prompt: str
    key: str
    """Names its inversion in `Row`."""


@dataclass(frozen=True)
class Work:
    """What is to be made, and by which numbers."""

    pictures: list[Picture]
    rows: list[Row]
    inversion_steps: int
    steps: int
    guidance: float
    split: float


def work_of(run: Run, rows: list[Row]) -> Work:
    """The same work that `run` plans."""
    pictures: list[Picture] = []
    for item, image in zip(run.plan.inversions(), run.source.images, strict=True):
        pixels = np.asarray(Image.open(f"{run.source.url}/{image.where}").convert("RGB"))
        pictures.append(Picture(pixels, image.label, item.prompt, item.key))
    config = run.config
    return Work(
        pictures=pictures,
        rows=rows,
        inversion_steps=config.inversion.steps,
        steps=config.generation.steps,
        guidance=config.generation.guidance_scale,
        split=config.generation.split,
    )


class Loop:
    """One of the two; `reload` loads the model for every class, and then `batch` should be 1."""

    def __init__(self, model: Path, device: torch.device, dtype: torch.dtype, batch: int, reload: bool) -> None:
        self._model, self._device, self._dtype, self._batch, self._reload = model, device, dtype, batch, reload
        self._load()

    def make(self, work: Work) -> dict[Place, np.ndarray]:
        """Every row's image, uint8 (S, S, 3), by its place; each is encoded as PNG too, as it would be to be stored."""
        made: dict[Place, np.ndarray] = {}
        for number, label in enumerate(sorted({picture.label for picture in work.pictures}) if self._reload else [-1]):
            if number:
                self._load()
            pictures = [picture for picture in work.pictures if label in (-1, picture.label)]
            rows = [row for row in work.rows if label in (-1, row.label)]
            inversions: dict[str, np.ndarray] = {}
            for part in _parts(pictures, self._batch):
                inversions |= zip((p.key for p in part), self._invert(part, work), strict=True)
            for part in _parts(rows, self._batch):
                for row, image in zip(part, self._generate(part, inversions, work), strict=True):
                    Image.fromarray(image).save(io.BytesIO(), "png")
                    made[row.label, row.ordinal] = image
        return made

    def _load(self) -> None:
        pipeline: Any = StableDiffusionPipeline.from_pretrained(
            self._model, dtype=self._dtype, local_files_only=True, safety_checker=None, requires_safety_checker=False
        )
        self._pipeline = pipeline.to(self._device)
        self._scheduler: Any = DDIMScheduler.from_config(pipeline.scheduler.config)
        self._alphas = self._scheduler.alphas_cumprod.double().tolist()

    def _text(self, prompts: list[str]) -> Tensor:
        tokenizer = self._pipeline.tokenizer
        ids = tokenizer(
            prompts,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return self._pipeline.text_encoder(ids.to(self._device))[0]

    def _unet(self, x: Tensor, timestep: int, text: Tensor) -> Tensor:
        return self._pipeline.unet(x.to(self._dtype), timestep, encoder_hidden_states=text).sample.float()

    @torch.inference_mode()
    def _invert(self, pictures: list[Picture], work: Work) -> np.ndarray:
        pixels = torch.from_numpy(np.stack([picture.pixels for picture in pictures])).to(self._device)
        vae = self._pipeline.vae
        encoded = vae.encode((pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0).to(self._dtype)).latent_dist
        x = encoded.mean.float() * vae.config.scaling_factor
        text = self._text([picture.prompt for picture in pictures])
        self._scheduler.set_timesteps(work.inversion_steps)
        below = float(self._scheduler.final_alpha_cumprod)
        for timestep in reversed(self._scheduler.timesteps.tolist()):
            above = self._alphas[timestep]
            epsilon = self._unet(x, timestep, text)
            clean = (x - (1 - below) ** 0.5 * epsilon) / below**0.5
            x, below = above**0.5 * clean + (1 - above) ** 0.5 * epsilon, above
        return x.cpu().numpy()

    @torch.inference_mode()
    def _generate(self, rows: list[Row], inversions: dict[str, np.ndarray], work: Work) -> np.ndarray:
        starts = []
        for row in rows:
            a, b = inversions[row.inversion_a], inversions[row.inversion_b]
            starts.append(circle_point(a, b, row.phi, gaussian(row.seed, a.shape)))
        x = torch.from_numpy(np.stack(starts)).to(self._device)
        plain = self._text([row.plain_prompt for row in rows])
        suffixed = self._text([row.suffix_prompt for row in rows])
        empty = self._text([""] * len(rows))
        total = len(self._alphas)
        self._scheduler.set_timesteps(work.steps)
        for timestep in self._scheduler.timesteps.tolist():
            text = suffixed if timestep >= total - round(total * work.split) else plain
            without, wanted = self._unet(torch.cat([x, x]), timestep, torch.cat([empty, text])).chunk(2)
            epsilon = without + work.guidance * (wanted - without)
            x = self._scheduler.step(epsilon, timestep, x).prev_sample
        vae = self._pipeline.vae
        shown = vae.decode((x / vae.config.scaling_factor).to(self._dtype)).sample.float() / 2 + 0.5
        images = shown.permute(0, 2, 3, 1).cpu().numpy()
        return (np.clip(images, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _parts(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
