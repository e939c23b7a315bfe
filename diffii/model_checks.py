"""What a loaded pipeline must hold before it is used: the libraries load less than whole models without a word."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from diffii.errors import ModelError


def one_line(error: Exception) -> str:
    """An error's text, short enough for one line."""
    return textwrap.shorten(str(error), 300, placeholder=" ...") or type(error).__name__


def refuse_other_kinds(pipeline: Any, model: str) -> None:
    """Raises ModelError for what loads and cannot be called as Stable Diffusion 1.x or 2.x: SDXL, inpainting."""
    unet, latents = pipeline.unet.config, int(pipeline.vae.config.latent_channels)
    width, wanted = int(pipeline.text_encoder.config.hidden_size), unet.cross_attention_dim
    wanted = wanted if isinstance(wanted, int) else max(wanted)
    said = ""
    if unet.get("addition_embed_type") or unet.get("class_embed_type"):
        said = "its U-Net wants more than a prompt, as SDXL's does"
    elif int(unet.in_channels) != latents:
        said = f"its U-Net takes {unet.in_channels} channels and its latents have {latents}, as of an inpainting model"
    elif width != wanted:
        said = f"its text encoder gives {width} numbers a token and its U-Net takes {wanted}"
    if said:
        raise ModelError(f"backbone.model: {model} is not Stable Diffusion 1.x or 2.x: {said}. Give one that is.")


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
