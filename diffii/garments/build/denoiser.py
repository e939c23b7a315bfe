"""Train the text encoder and the U-Net together, and save the whole as a Stable Diffusion pipeline directory.

The captions name a coarse class and a context ("a photo of a shoe on grass"). Coarse classes are drawn evenly,
else bags and dresses, which have the fewest photos, come out weakest.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffii.garments.build.autoencoder import base_classes, scenes
from diffii.garments.build.photos import Photos
from diffii.garments.build.training import Average, Progress, linear_decay
from diffii.garments.build.vocabulary import MAX_TOKENS, new_tokenizer
from diffii.garments.catalog import CLASSES, COARSE, COARSE_OF, CONTEXTS, caption

STEPS = 6_000
BATCH = 64
LEARNING_RATE = 1e-3
NO_CAPTION = 0.10
"""Share of empty captions: the unconditional half of classifier-free guidance learns from them."""
NO_CONTEXT = 0.15
"""Share of captions that name the class alone: the plain prompt of the method's second stage."""


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=64,
            bos_token_id=tokenizer.bos_token_id,  # pyright: ignore[reportArgumentType]
            eos_token_id=tokenizer.eos_token_id,  # pyright: ignore[reportArgumentType]
            pad_token_id=tokenizer.pad_token_id,  # pyright: ignore[reportArgumentType]
        )
    )


def new_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(48, 96),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=64,
        norm_num_groups=16,
    )


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion 1.5's own scheduler settings."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def train(photos: Photos, vae_dir: Path, out: Path, seed: int = 0, steps: int = STEPS) -> None:
    """Train on `photos` (novel classes dropped here); `out` holds a loadable pipeline every 500 steps."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 2])
    batches = _Batches(base_classes(photos), rng)
    vae = AutoencoderKL.from_pretrained(vae_dir).eval().requires_grad_(False)
    tokenizer, scheduler, unet = new_tokenizer(), new_scheduler(), new_unet()
    text = new_text_encoder(tokenizer)
    both = torch.nn.ModuleDict({"text": text, "unet": unet})
    average = Average(both)
    optimiser = torch.optim.AdamW(both.parameters(), LEARNING_RATE)
    schedule = linear_decay(optimiser, steps)
    progress = Progress("denoiser", steps, BATCH)
    for step in range(steps):
        images, captions = batches.draw(BATCH)
        with torch.inference_mode():
            latents = vae.encode(images).latent_dist.mean * vae.config.scaling_factor  # pyright: ignore
        latents = latents.clone()
        noise = torch.randn_like(latents)
        timesteps = torch.randint(1000, (BATCH,))
        tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        with torch.autocast("cpu", torch.bfloat16):
            noisy = scheduler.add_noise(latents, noise, timesteps)  # pyright: ignore[reportArgumentType]
            predicted = unet(noisy, timesteps, text(tokens).last_hidden_state).sample  # pyright: ignore
        loss = F.mse_loss(predicted.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        average.update(both, step)
        progress.update(step, float(loss.detach()))
        if (step + 1) % 500 == 0 or step + 1 == steps:
            _save(average, tokenizer, vae, scheduler, out)


class _Batches:
    """Draws composed images with their captions: coarse classes and contexts evenly."""

    def __init__(self, photos: Photos, rng: np.random.Generator) -> None:
        self._photos, self._rng = photos, rng
        coarse = np.array([COARSE.index(COARSE_OF[name]) for name in CLASSES])[photos.labels]
        self._rows_of = [np.flatnonzero(coarse == index) for index in range(len(COARSE))]

    def draw(self, count: int) -> tuple[torch.Tensor, list[str]]:
        rng = self._rng
        coarse = rng.integers(len(COARSE), size=count)
        contexts = rng.integers(len(CONTEXTS), size=count)
        rows = np.array([rng.choice(self._rows_of[c]) for c in coarse])
        images = scenes(self._photos, rows, contexts, rng.integers(2**31, size=count))
        names = list(CONTEXTS)
        captions = [
            "" if kind < NO_CAPTION else caption(COARSE[c], None if kind < NO_CAPTION + NO_CONTEXT else names[x])
            for kind, c, x in zip(rng.random(count), coarse, contexts, strict=True)
        ]
        return images, captions


def _save(average: Average, tokenizer: CLIPTokenizer, vae: AutoencoderKL, scheduler: DDIMScheduler, out: Path) -> None:
    text, unet = new_text_encoder(tokenizer), new_unet()
    torch.nn.ModuleDict({"text": text, "unet": unet}).load_state_dict(average.state_dict())
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,  # pyright: ignore[reportArgumentType]
        safety_checker=None,  # pyright: ignore[reportArgumentType]
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(out)
