"""What a loaded pipeline must hold before it is used: the libraries load less than whole models without a word."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from diffii.errors import ModelError


def one_line(error: Exception) -> str:
    """An error's text, short enough for one line."""
    return textwrap.shorten(str(error), 300, placeholder=" ...") or type(error).__name__


def refuse_incomplete(pipeline: Any, model: str, directory: Path) -> None:
    """Raises ModelError when a file lacks tensors.

    diffusers leaves such a tensor without data; transformers fills it at random and says nothing.
    """
    for part in ("unet", "vae", "text_encoder"):
        stored = sum(len(_names(path)) for path in (directory / part).glob("*.safetensors"))
        wanted = sum(1 for _ in getattr(pipeline, part).parameters())
        if stored < wanted:
            raise ModelError(
                f"backbone.model: {model} is incomplete: {part} has {wanted} tensors, its safetensors hold {stored}. "
                "Download or save the model again."
            )


def _names(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def refuse_schedule(scheduler: Any, model: str) -> None:
    """Raises ModelError for a noise schedule or prediction type that inversion cannot work with."""
    prediction = scheduler.config.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise ModelError(
            f"backbone.model: {model} predicts {prediction!r}; only epsilon and v_prediction are understood."
        )
    if not float(scheduler.alphas_cumprod.min()) > 0.0:
        raise ModelError(
            f"backbone.model: {model} has a noise schedule that ends in pure noise (rescale_betas_zero_snr), "
            "from which no image can be inverted. Use a model without that setting."
        )
