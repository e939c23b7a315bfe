"""Train the small AutoencoderKL: 3x32x32 images <-> 4x16x16 latents, on the base classes only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F

from diffii.garments.build.photos import Photos
from diffii.garments.build.training import Progress, linear_decay
from diffii.garments.catalog import CLASSES, CONTEXTS, NOVEL
from diffii.garments.scene import SIZE, compose

STEPS = 4_000
BATCH = 64
LEARNING_RATE = 2e-3
KL_WEIGHT = 1e-3


def new_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),  # pyright: ignore[reportArgumentType]
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),  # pyright: ignore[reportArgumentType]
        block_out_channels=(16, 32),  # pyright: ignore[reportArgumentType]
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIZE,
        mid_block_add_attention=False,
    )


def base_classes(photos: Photos) -> Photos:
    """Drop the novel classes: nothing that is pretrained may have seen one of their photos."""
    novel = [CLASSES.index(name) for name in NOVEL]
    return photos.take(~np.isin(photos.labels, novel))


def scenes(photos: Photos, rows: np.ndarray, contexts: np.ndarray, seeds: np.ndarray) -> torch.Tensor:
    """Compose a batch: float32 (B, 3, 32, 32) in [-1, 1]."""
    names = list(CONTEXTS)
    images = [compose(photos.pixels[r], names[c], int(s)) for r, c, s in zip(rows, contexts, seeds, strict=True)]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def train(photos: Photos, out: Path, seed: int = 0, steps: int = STEPS) -> None:
    """Train on `photos` (novel classes dropped here) and save a diffusers directory with its scaling factor."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 1])
    photos = base_classes(photos)
    vae = new_autoencoder()
    optimiser = torch.optim.AdamW(vae.parameters(), LEARNING_RATE)
    schedule = linear_decay(optimiser, steps)
    progress = Progress("autoencoder", steps, BATCH)
    for step in range(steps):
        images = _draw(photos, rng, BATCH)
        posterior = vae.encode(images).latent_dist  # pyright: ignore[reportAttributeAccessIssue]
        decoded = vae.decode(posterior.sample()).sample  # pyright: ignore[reportAttributeAccessIssue]
        kl = posterior.kl().mean() / images[0].numel()
        loss = F.l1_loss(decoded, images) + 0.5 * F.mse_loss(decoded, images) + KL_WEIGHT * kl
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        progress.update(step, float(loss.detach()))
    vae.eval()
    with torch.inference_mode():
        images = _draw(photos, rng, 2_000)
        latents = vae.encode(images).latent_dist.mean  # pyright: ignore[reportAttributeAccessIssue]
        error = F.mse_loss(vae.decode(latents).sample, images)  # pyright: ignore[reportAttributeAccessIssue]
    print(f"autoencoder: {10 * torch.log10(4.0 / error):.1f} dB PSNR, latent std {latents.std():.3f}")
    vae.register_to_config(scaling_factor=round(float(1.0 / latents.std()), 5))
    vae.save_pretrained(out)


def _draw(photos: Photos, rng: np.random.Generator, count: int) -> torch.Tensor:
    rows = rng.integers(len(photos.labels), size=count)
    return scenes(photos, rows, rng.integers(len(CONTEXTS), size=count), rng.integers(2**31, size=count))
