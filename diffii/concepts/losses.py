"""The loss of drawn rows: images as latents, made noisy, and how far the model's prediction is from what was wanted.

N images   B rows   C latent channels   H, W latent size   T positions   D text width
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from diffii.backbone import Backbone
from diffii.concepts.draws import Draw
from diffii.concepts.lesson import Lesson
from diffii.concepts.tokens import prompt_ids
from diffii.invert import fixed_batches


def encode_images(backbone: Backbone, images: Iterable[np.ndarray], flip: bool, micro_batch: int = 4) -> Tensor:
    """uint8 images (S, S, 3) -> float32 latents (1 or 2, N, C, H, W) on the CPU; the second half mirrored.

    The posterior's mean, as in inversion. Once: the reference encodes an image again each time it is shown. Every call
    of the VAE has `micro_batch` images: one shape for all, so that an image's latent does not depend on its mates.
    """
    sides: list[list[Tensor]] = [[] for _ in range(1 + flip)]
    rest = iter(images)
    while batch := list(islice(rest, micro_batch)):
        rows, real = next(fixed_batches(len(batch), micro_batch))
        pixels = np.stack([batch[row] for row in rows])
        for side, latents in enumerate(sides):
            found = backbone.encode(pixels[:, :, ::-1] if side else pixels)
            latents += list(found[:real].cpu())
    return torch.stack([torch.stack(latents) for latents in sides]).clone()


class RowLosses:
    """Of epsilon, or of v where the model predicts that, by the model as it stands at each call."""

    def __init__(self, backbone: Backbone, lesson: Lesson, latents: Tensor, tokens: int, first: int) -> None:
        """`latents` comes from `encode_images`; `first` is the id of the first of the lesson's tokens.

        Raises ModelError when a prompt has no room for its `tokens` tokens.
        """
        if latents.shape[1] != len(lesson.labels):
            raise ValueError(f"{latents.shape[1]} latents for {len(lesson.labels)} images")
        self.latents, self._backbone = latents, backbone
        self._alphas = backbone.pipeline.scheduler.alphas_cumprod.float()
        self._ids, self._prompt_of = _prompts(lesson, backbone.pipeline.tokenizer, tokens, first)

    @property
    def timesteps(self) -> int:
        """Of the model's noise schedule."""
        return len(self._alphas)

    def __call__(self, draws: Sequence[Draw]) -> Tensor:
        """The squared error of each row's prediction, float32 (B,)."""
        device = self._backbone.device
        shape = self._backbone.latent_shape
        clean_BCHW = torch.stack([self.latents[int(draw.flip), draw.image] for draw in draws]).to(device)
        noise_BCHW = torch.from_numpy(np.stack([draw.noise(shape) for draw in draws])).to(device)
        timesteps = torch.tensor([draw.timestep for draw in draws])
        alpha = self._alphas[timesteps].to(device).view(-1, 1, 1, 1)
        noisy_BCHW = alpha.sqrt() * clean_BCHW + (1 - alpha).sqrt() * noise_BCHW
        wanted = noise_BCHW
        if self._backbone.record.prediction == "v_prediction":
            wanted = alpha.sqrt() * noise_BCHW - (1 - alpha).sqrt() * clean_BCHW
        # Each prompt once, however many rows show it.
        prompts, of_row = np.unique([self._prompt_of[draw.image] for draw in draws], return_inverse=True)
        dtype = self._backbone.dtype
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            text = self._backbone.pipeline.text_encoder(self._ids[prompts].to(device))[0]
            text_BTD = text[torch.from_numpy(of_row).to(device)]
            unet = self._backbone.pipeline.unet
            predicted = unet(noisy_BCHW, timesteps.to(device), encoder_hidden_states=text_BTD, return_dict=False)[0]
        return F.mse_loss(predicted.float(), wanted, reduction="none").mean((1, 2, 3))


def _prompts(lesson: Lesson, tokenizer: Any, count: int, first: int) -> tuple[Tensor, np.ndarray]:
    """The ids (prompts, T) of the different prompts, and which one each image has."""
    texts = lesson.prompts(count)
    unique = list(dict.fromkeys(texts))
    tokens = lesson.tokens(count)
    rows = {name: row for row, name in enumerate(name for names in tokens.values() for name in names)}
    ids = [prompt_ids(tokenizer, text, rows, first) for text in unique]
    place = {text: index for index, text in enumerate(unique)}
    return torch.tensor(ids), np.array([place[text] for text in texts])
