"""A resident image captioner: any `transformers` model that writes text from an image alone (BLIP, GIT, ViT-GPT2).

B micro-batch   E edge of the model's images in pixels   N images
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from diffii.contexts.captioner_files import KEY, image_settings, locate
from diffii.errors import ModelError
from diffii.invert import fixed_batches
from diffii.model_checks import one_line

DEFAULT = "Salesforce/blip-image-captioning-base"
_LOADING = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError, SafetensorError)
"""What damaged or foreign files raise in transformers; SafetensorError (a file cut short) is none of the others."""


class Captioner:
    """A frozen captioner in evaluation mode. Make one with `Captioner.load`; `edge` is what its images measure."""

    def __init__(
        self,
        generate: Callable[[torch.Tensor], torch.Tensor],
        decode: Callable[[torch.Tensor], list[str]],
        edge: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        micro_batch: int,
        device: torch.device,
    ) -> None:
        self.edge, self.micro_batch = edge, micro_batch
        self._generate, self._decode, self._device = generate, decode, device
        self._mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=device).view(1, 3, 1, 1)

    @classmethod
    def load(
        cls, model: str, micro_batch: int, beams: int = 3, max_tokens: int = 30, device: str | None = None
    ) -> Captioner:
        """Load `model` (hub id or directory, safetensors only); float16 on CUDA, float32 on the CPU.

        Decoding is a search over `beams` (1 is greedy) for up to `max_tokens` tokens, without chance. Raises
        ModelError naming the setting and the mend when the model cannot be had, is no captioner or is incomplete, and
        ValueError for numbers below 1.
        """
        if min(micro_batch, beams, max_tokens) < 1:
            raise ValueError(f"micro_batch, beams and max_tokens are 1 or more: {micro_batch}, {beams}, {max_tokens}")
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = torch.float16 if where.type == "cuda" else torch.float32
        directory = locate(model)
        network, tokenizer = _load(model, directory, dtype)
        network = network.eval().requires_grad_(False).to(where)
        edge, mean, std = image_settings(model, directory, network.config)

        def generate(pixels_BCEE: torch.Tensor) -> torch.Tensor:
            return network.generate(
                pixel_values=pixels_BCEE.to(dtype), do_sample=False, num_beams=beams, max_new_tokens=max_tokens
            )

        def decode(ids: torch.Tensor) -> list[str]:
            return tokenizer.batch_decode(ids, skip_special_tokens=True)

        found = cls(generate, decode, edge, mean, std, micro_batch, where)
        found._try(model)
        return found

    @torch.inference_mode()
    def captions(self, images: np.ndarray) -> list[str]:
        """One caption per uint8 RGB image (N, E, E, 3), as the model writes it, spaces tidied.

        Every call of the model has exactly `micro_batch` rows, the last one padded by repetition: a caption depends on
        its image and on that number. Raises ValueError for images of another type or shape.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (self.edge, self.edge, 3):
            raise ValueError(
                f"images to caption are uint8 (N, {self.edge}, {self.edge}, 3), got {images.dtype} {images.shape}"
            )
        captions: list[str] = []
        for rows, real in fixed_batches(len(images), self.micro_batch):
            batch = torch.from_numpy(images[rows]).to(self._device).permute(0, 3, 1, 2).float() / 255.0
            ids = self._generate((batch - self._mean) / self._std)
            captions += [" ".join(text.split()) for text in self._decode(ids)[:real]]
        return captions

    def _try(self, model: str) -> None:
        """Caption one grey image: a model that wants a question too, or another size, says so only when it is asked."""
        try:
            self.captions(np.full((1, self.edge, self.edge, 3), 128, np.uint8))
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"captions.micro_batch: {self.micro_batch} images at once do not fit the memory of {self._device} with "
                f"{model}; set a smaller one"
            ) from error
        except (ValueError, TypeError, AttributeError, RuntimeError, IndexError, KeyError) as error:
            raise ModelError(
                f"{KEY}: {model} loads but does not caption an image without further input ({one_line(error)}); "
                f"take a model that does, such as {DEFAULT}"
            ) from error


def _load(model: str, directory: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from transformers import AutoModelForImageTextToText, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity(logging.CRITICAL)  # what goes wrong is raised, in one line
    transformers_logging.disable_progress_bar()
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            directory, use_safetensors=True, local_files_only=True, dtype=dtype, output_loading_info=True
        )
        network, report = loaded
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except _LOADING as error:
        raise ModelError(
            f"{KEY}: {model} does not load as a transformers image-to-text model from safetensors: "
            f"{one_line(error)}. Give a directory or a hub id such as {DEFAULT}, or let the diffusion model caption"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{KEY}: {model} is incomplete: it has no {', '.join(missing[:3])}; download or save it again")
    return network, tokenizer
