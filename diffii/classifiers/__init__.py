"""Classifiers that expansion is measured with: `scratch`, `lite0`, or a transformers model by hub id or path."""

from __future__ import annotations

from diffii.classifiers.job import Blend, Classifier, Job
from diffii.classifiers.lite0 import Lite0
from diffii.classifiers.scratch import Scratch


def classifier(name: str) -> Classifier:
    """The classifier of this name. Raises ModelError when its packages or weights are missing."""
    if name == Scratch.name:
        return Scratch()
    if name == Lite0.name:
        return Lite0()
    from diffii.classifiers.pretrained import Pretrained

    return Pretrained(name)


__all__ = ["Blend", "Classifier", "Job", "classifier"]
