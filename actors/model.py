"""What every actor that holds a model is told, and does first: load it, fix its threads, say what it computes with."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

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
class ActorSpec:
    """What the actors of every stage are told; a stage adds its own."""

    model: ModelSpec
    output_url: str
    micro_batch: int
    embedder: str | None = None
    """What near-copies are recognised by, if they are to be."""
    stall_timeout: float = 900.0
    """Seconds without an answer of the model (one call, not a micro-batch) after which it counts as hung. Compiling
    kernels in the first call takes minutes; a hang that costs a quarter of an hour costs less than a wrong verdict."""
    attempts: int = SILENT_DEATHS
    """Deaths until a row is blamed for them."""
    run: str = field(default_factory=lambda: secrets.token_hex(8))
    """Names one execution by one driver: made with the spec, on the driver, and the same in all its actors."""
    spot_notices: bool = False
    """Ask the cloud whether it takes the machine back (`actors.spot`)."""
    board: Any = None
    """Handle of the stage's `actors.board.Board`, which `engine.stream` puts in; without one nobody watches."""


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
