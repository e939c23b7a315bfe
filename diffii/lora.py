"""Low-rank adapters: read in any layout that training scripts have written, fused into weights, or to be learned."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from diffii.errors import ModelError
from diffii.hashing import seed64
from diffii.model_checks import one_line

# A key begins with the part it is for. `unet.save_attn_procs`, which older training scripts call, writes
# keys without one; diffusers would pass over such a file without a word.
_LORA_PARTS = ("unet.", "text_encoder.", "lora_unet_", "lora_te")
_LORA_HALF = re.compile(r"\.(?:(?P<down>lora_A|lora_down|down)|(?P<up>lora_B|lora_up|up))\.weight$")
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
"""What the concepts' LoRA adapts, in self- and cross-attention alike."""


def add_lora(pipeline: Any, path: Path) -> None:
    """Add the LoRA in `path` to the model's weights for good. Raises ModelError (see `lora_deltas`)."""
    fuse(pipeline, lora_deltas(pipeline, read_lora(path), str(path)))


def read_lora(path: Path) -> dict[str, Tensor]:
    """The tensors of a LoRA file in safetensors. Raises ModelError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"the LoRA {path} cannot be read: {one_line(error)}") from error


def lora_deltas(pipeline: Any, tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """What a LoRA adds to the weights: `unet.<module>` or `text_encoder.<module>` -> float32 (outputs, inputs).

    diffusers places the matrices, so any layout it knows is known here; the model is left as it was. It at most logs
    what it could not place, and leaves the missing half of a pair uninitialised, so every matrix is counted.
    Raises ModelError naming `where` unless each finds its place.
    """
    from peft.tuners.lora import LoraLayer

    halves: dict[str, set[str]] = {}
    for key in tensors:
        if match := _LORA_HALF.search(key):
            halves.setdefault(key[: match.start()], set()).add(str(match.lastgroup))
        elif not key.endswith(".alpha"):
            raise ModelError(f"the LoRA {where} does not fit this model: {key} is no part of a LoRA")
    single = [name for name, found in halves.items() if len(found) == 1]
    if single or not halves:
        trouble = f"{single[0]} has one matrix of two" if single else "it is empty"
        raise ModelError(f"the LoRA {where} does not fit this model: {trouble}")
    named = dict(tensors)
    if not any(key.startswith(_LORA_PARTS) for key in tensors):
        named = {f"unet.{key}": tensor for key, tensor in tensors.items()}
    try:
        pipeline.load_lora_weights(named)
        deltas = {
            f"{part}.{name}": _delta(cast(LoraLayer, module))
            for part in ("unet", "text_encoder")
            for name, module in getattr(pipeline, part).named_modules()
            if isinstance(module, LoraLayer)
        }
    # IndexError: what diffusers raises over keys it cannot tell a rank from.
    except (ValueError, KeyError, IndexError, RuntimeError) as error:
        raise ModelError(f"the LoRA {where} does not fit this model: {one_line(error)}") from error
    finally:
        pipeline.unload_lora_weights()
    if len(deltas) != len(halves):
        raise ModelError(f"the LoRA {where} fits {len(deltas)} modules of this model, but is for {len(halves)}")
    return deltas


def _delta(layer: Any) -> Tensor:
    """Up times down times the scale, always on the CPU in float32: the same bits on every device."""
    name = layer.active_adapters[0]
    down, up = (half[name].weight.detach().float().cpu() for half in (layer.lora_A, layer.lora_B))
    return torch.einsum("or,ri...->oi...", up.flatten(1), down) * layer.scaling[name]


@torch.no_grad()
def fuse(pipeline: Any, deltas: Mapping[str, Tensor], originals: Mapping[str, Tensor] | None = None) -> None:
    """Set each weight to its original (by default what it holds now) plus its delta, in place."""
    for name, delta in deltas.items():
        weight = weight_of(pipeline, name)
        original = weight if originals is None else originals[name]
        weight.copy_(original.float().cpu() + delta.view(weight.shape))


def weight_of(pipeline: Any, name: str) -> Tensor:
    """The weight that a key of `lora_deltas` is about."""
    part, _, module = name.partition(".")
    return cast(Tensor, getattr(pipeline, part).get_submodule(module).weight)


def start_adapter(unet: Any, rank: int, seed: int) -> dict[str, Tensor]:
    """Add a fresh LoRA to every attention projection, to be learned; returns its float32 matrices.

    Keys are those of diffusers' own LoRA files. The lower matrices start uniform in +-1/sqrt(inputs) from `seed`, the
    upper ones at zero.
    """
    from peft import LoraConfig
    from peft.tuners.lora import LoraLayer

    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(PROJECTIONS)), "default")
    matrices: dict[str, Tensor] = {}
    for name, module in unet.named_modules():
        if isinstance(module, LoraLayer):
            down, up = (cast(Any, half)["default"].float().weight for half in (module.lora_A, module.lora_B))
            bound = down.shape[1] ** -0.5
            start = np.random.Generator(np.random.Philox(seed64(seed, "lora", name))).uniform(-bound, bound, down.shape)
            with torch.no_grad():
                down.copy_(torch.from_numpy(start))
                up.zero_()
            matrices |= {f"unet.{name}.lora.down.weight": down, f"unet.{name}.lora.up.weight": up}
    return matrices


def stop_adapter(unet: Any) -> None:
    """Take the LoRA of `start_adapter` off again."""
    unet.unload_lora()
