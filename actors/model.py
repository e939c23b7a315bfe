"""What every actor does first: load the model once, fix its threads, and say what it computes with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import version

from diffii.backbone import Backbone
from diffii.kinds import Attention, DTypeName


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Which model to load and how: small enough to travel to every actor."""

    model: str
    dtype: DTypeName
    attention: Attention
    threads: int
    """CPU threads of the model; fixed by the run, because Ray's own choice follows the number of actors."""


def load(spec: ModelSpec) -> Backbone:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    torch.set_num_threads(spec.threads)
    return Backbone.load(spec.model, spec.dtype, spec.attention)


def fingerprint(backbone: Backbone) -> str:
    """What an image's last bits depend on besides its recipe: device, arithmetic, kernels, versions."""
    record = backbone.record
    packages = " ".join(f"{name}-{version(name)}" for name in ("torch", "diffusers", "transformers", "numpy", "Pillow"))
    threads = f" threads-{record.threads}" if record.threads else ""
    return f"{record.device} {record.dtype} {record.attention}{threads} {packages}"
