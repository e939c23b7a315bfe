"""What every actor that holds a model is told, and does first: load it, fix its threads, say what it computes with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import version

from actors.board import Watched
from actors.failures import SILENT_DEATHS
from diffii.backbone import Backbone
from diffii.concepts.files import open_concepts
from diffii.errors import ModelError
from diffii.kinds import Attention, DTypeName
from diffii.model_cache import is_url
from diffii.weights import locate, weights_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Which model to load and how: small enough to travel to every actor."""

    model: str
    dtype: DTypeName
    attention: Attention
    threads: int
    """CPU threads of the model; fixed by the run, because Ray's own choice follows the number of actors."""
    concepts: str = ""
    """URL of the concepts to put into it; empty for none."""
    weights: str = ""
    """Digest that a model from a URL must have (`diffii.weights`): each machine has copied it by itself."""
    compiled: bool = False
    """The U-Net goes through torch.compile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorSpec(Watched):
    """What the actors are told that make images, of noise or of images."""

    model: ModelSpec
    micro_batch: int
    embedder: str | None = None
    """What near-copies are recognised by, if they are to be."""
    attempts: int = SILENT_DEATHS
    """Deaths until a row is blamed for them."""


def load(spec: ModelSpec) -> Backbone:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    torch.set_num_threads(spec.threads)
    if spec.weights and is_url(spec.model) and weights_digest(locate(spec.model)) != spec.weights:
        raise ModelError(
            f"backbone.model: {spec.model} is not what it was when the run was planned; restore it, or use a new output"
        )
    backbone = Backbone.load(spec.model, spec.dtype, spec.attention, compile_unet=spec.compiled)
    if spec.concepts:
        backbone.use(open_concepts(spec.concepts))
    return backbone


def fingerprint(backbone: Backbone, concepts: str = "") -> str:
    """What an image's last bits depend on besides its recipe: device, arithmetic, kernels, versions.

    `concepts` names those in use by what a run was begun with: what is learned later changes no earlier class.
    """
    record = backbone.record
    packages = " ".join(f"{name}-{version(name)}" for name in ("torch", "diffusers", "transformers", "numpy", "Pillow"))
    threads = f" threads-{record.threads}" if record.threads else ""
    known = concepts or (backbone.concepts.digest if backbone.concepts else "")
    named = f" concepts-{known[:16]}" if known else ""
    kernels = f"{record.attention}{' compiled' if record.compiled else ''}"
    return f"{record.device} {record.dtype} {kernels}{threads}{named} {packages}"
