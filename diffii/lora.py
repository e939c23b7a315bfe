"""Add a low-rank adapter to a pipeline's weights, in any layout that training scripts have written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from diffii.errors import ModelError
from diffii.model_checks import one_line

# A key begins with the part it is for. `unet.save_attn_procs`, which older training scripts call, writes
# keys without one; diffusers would pass over such a file without a word.
_LORA_PARTS = ("unet.", "text_encoder.", "lora_unet_", "lora_te")
_LORA_HALF = re.compile(r"\.(?:(?P<down>lora_A|lora_down|down)|(?P<up>lora_B|lora_up|up))\.weight$")


def add_lora(pipeline: Any, path: Path) -> None:
    """Add the LoRA in `path` to the model's weights; ModelError unless every matrix of the file finds its place.

    diffusers at most logs what it could not place, and leaves the missing half of a pair uninitialised.
    """
    from peft.tuners.lora import LoraLayer
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"the LoRA {path} cannot be read: {one_line(error)}") from error
    halves: dict[str, set[str]] = {}
    for key in tensors:
        if match := _LORA_HALF.search(key):
            halves.setdefault(key[: match.start()], set()).add(str(match.lastgroup))
        elif not key.endswith(".alpha"):
            raise ModelError(f"the LoRA {path} does not fit this model: {key} is no part of a LoRA")
    single = [name for name, found in halves.items() if len(found) == 1]
    if single or not halves:
        trouble = f"{single[0]} has one matrix of two" if single else "it is empty"
        raise ModelError(f"the LoRA {path} does not fit this model: {trouble}")
    if not any(key.startswith(_LORA_PARTS) for key in tensors):
        tensors = {f"unet.{key}": tensor for key, tensor in tensors.items()}
    try:
        pipeline.load_lora_weights(tensors)
        placed = sum(
            isinstance(module, LoraLayer)
            for part in (pipeline.unet, pipeline.text_encoder)
            for module in part.modules()
        )
        if placed != len(halves):
            raise ModelError(f"the LoRA {path} fits {placed} modules of this model, but is for {len(halves)}")
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
    # IndexError: what diffusers raises over keys it cannot tell a rank from.
    except (ValueError, KeyError, IndexError, RuntimeError) as error:
        raise ModelError(f"the LoRA {path} does not fit this model: {one_line(error)}") from error
