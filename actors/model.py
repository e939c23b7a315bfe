"""What every actor that holds a model is told, and does first: load it, fix its threads, say what it computes with."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version

from actors.board import Watched
from actors.failures import SILENT_DEATHS
from diffii.backbone import Backbone
from diffii.concepts.files import open_concepts
from diffii.embedder_weights import LITE0, embedder_digest
from diffii.embedding import Embedder
from diffii.errors import ModelError
from diffii.kinds import Attention, DTypeName
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
    """Digest that the model must have (`diffii.weights`): each machine has its own copy."""
    compiled: bool = False
    """The U-Net goes through torch.compile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorSpec(Watched):
    """What the actors are told that make images, of noise or of images."""

    model: ModelSpec
    micro_batch: int
    embedder: str | None = None
    """What near-copies are recognised by, if they are to be."""
    embedder_weights: str = ""
    """Digest that it must have."""
    attempts: int = SILENT_DEATHS
    """Deaths until a row is blamed for them."""


def load(spec: ModelSpec) -> Backbone:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    torch.set_num_threads(spec.threads)
    if spec.weights and weights_digest(locate(spec.model)) != spec.weights:
        raise another("backbone.model", spec.model)
    backbone = Backbone.load(spec.model, spec.dtype, spec.attention, compile_unet=spec.compiled)
    if spec.concepts:
        backbone.use(open_concepts(spec.concepts))
    return backbone


def load_embedder(spec: ActorSpec, rows: int) -> Embedder | None:
    """What recognises near-copies, `rows` images a call; None without one. Raises ModelError."""
    if spec.embedder is None:
        return None
    if spec.embedder_weights and embedder_digest(spec.embedder) != spec.embedder_weights:
        raise another("dedup.embedder", spec.embedder)
    return Embedder.load(spec.embedder, rows)


def embedder_name(spec: ActorSpec) -> str:
    """What a fingerprint calls it: one of a path or a repository by its weights, wherever it lies."""
    return LITE0 if spec.embedder == LITE0 else spec.embedder_weights[:16] or str(spec.embedder)


def another(key: str, model: str) -> ModelError:
    """The error of a model whose weights are not those that the run was planned with."""
    return ModelError(
        f"{key}: {model} is not what it was when the run was planned, on {platform.node() or 'this machine'} at least; "
        "give every machine the same files, or use a new output"
    )


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
