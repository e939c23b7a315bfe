"""Where a data set comes from, as its log says, and under which licences its parts stand."""

from __future__ import annotations

from pathlib import Path

import yaml

from diffii import __version__
from diffii.garments.catalog import CLASSES
from diffii.weights import EMBEDDED_DIR, weights_digest
from engine.run import Run

_PAPER = "Inversion Circle Interpolation: Diffusion-based Image Augmentation for Data-scarce Classification"


def provenance(run: Run, embedder: str, embedder_digest: str, clip: str = "") -> dict[str, str]:
    """What it is -> its value, in the order of a reader's questions; empty values are left out."""
    history, learned = run.history, run.plan.learned
    facts = {
        "Method": f"{_PAPER} (Wang and Chen, CVPR 2025, arXiv 2408.16266)",
        "Model": run.config.backbone.model,
        "Model weights, SHA-256": run.plan.weights,
        "Concepts, SHA-256": learned.concepts or "none: classes are named by words",
        "Contexts": ", ".join(dict.fromkeys(learned.suffixes)),
        "Real images": f"{len(run.source.images)} from {run.source.url}",
        "Real images, digest": run.source.digest,
        "Computed by": "; ".join(sorted(history.fingerprints)),
        "Log version": str(history.version),
        "Shards, digest": history.shards.digest,
        "Features of this report": f"{embedder}, SHA-256 {embedder_digest}",
        "CLIPScore of this report": clip,
        "Report written by": f"diffii {__version__}",
    }
    return {name: value for name, value in facts.items() if value}


def of_garments(run: Run) -> bool:
    """Whether a run expanded classes of the embedded data set with the embedded model; its photos may be others."""
    return set(run.source.classes) <= set(CLASSES) and run.plan.weights == weights_digest(EMBEDDED_DIR)


def licences(run: Run) -> list[tuple[str, str]]:
    """(part, licence). What cannot be known here is said to be so."""
    model = run.config.backbone.model
    embedded, unknown = of_garments(run), "not known to diffii; it applies to what is derived from them, too"
    return [
        ("diffii", "Apache-2.0"),
        (f"Model {model}", "Apache-2.0; trained on Fashion-MNIST (MIT)" if embedded else _model_licence(model)),
        ("Real images", "Fashion-MNIST, MIT, if they are those that come with diffii" if embedded else unknown),
    ]


def _model_licence(model: str) -> str:
    """What a model card beside the weights says; else where to look."""
    card = Path(model) / "README.md"
    if card.is_file():
        _, _, rest = card.read_text(encoding="utf-8", errors="replace").partition("---\n")
        front, mark, _ = rest.partition("\n---")
        try:
            found = yaml.safe_load(front) if mark else None
        except yaml.YAMLError:
            found = None
        if isinstance(found, dict) and found.get("license"):
            return str(found["license"])
    return "see its model card"
