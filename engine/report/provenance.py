"""Where a data set comes from, as its log says."""

from __future__ import annotations

from diffii import __version__
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
