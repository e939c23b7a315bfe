"""CLIPScore: how well an image fits the words it was made from (Hessel et al., EMNLP 2021).

torchmetrics has this figure as well, but its version 1.9 does not run with transformers 5.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from diffii.errors import ModelError
from diffii.model_checks import one_line


class ClipScore:
    """A frozen CLIP-like model in float32: images and words in one space. Make one with `ClipScore.load`."""

    def __init__(self, model: Any, processor: Any, device: torch.device) -> None:
        self._model, self._processor, self._device = model, processor, device

    @classmethod
    def load(cls, name: str, device: str | None = None) -> ClipScore:
        """A `transformers` CLIP by hub id or directory (safetensors only). Raises ModelError when it does not load."""
        from transformers import AutoModel, AutoProcessor
        from transformers.utils import logging as transformers_logging

        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        transformers_logging.set_verbosity(logging.CRITICAL)  # what goes wrong is raised, in one line
        transformers_logging.disable_progress_bar()
        try:
            model, report = AutoModel.from_pretrained(
                name, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
            if report["missing_keys"] or not hasattr(model, "get_text_features"):
                raise ValueError("it is no whole model of images and text")
            processor = AutoProcessor.from_pretrained(name)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
            raise ModelError(
                f"--clip {name} does not load as a transformers CLIP from safetensors: {one_line(error)}. "
                "Give a directory or a hub id such as openai/clip-vit-base-patch32"
            ) from error
        return cls(model.eval().requires_grad_(False).to(where), processor, where)

    @torch.inference_mode()
    def score(self, images: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """`100 * max(cosine, 0)` of uint8 RGB images (N, S, S, 3) and a text each: float64 (N,).

        Texts are cut to what the model reads. Raises ValueError for another number of texts than images.
        """
        if len(images) != len(texts):
            raise ValueError(f"{len(images)} images and {len(texts)} texts")
        longest = self._model.config.text_config.max_position_embeddings
        inputs = self._processor(
            text=list(texts),
            images=list(images),
            return_tensors="pt",
            padding="max_length",
            truncation=True,
            max_length=longest,
        )
        out = self._model(**inputs.to(self._device))
        image, text = (torch.nn.functional.normalize(x.double(), dim=-1) for x in (out.image_embeds, out.text_embeds))
        return 100.0 * (image * text).sum(1).clamp(min=0.0).cpu().numpy()
