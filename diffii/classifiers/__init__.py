"""Classifiers that expansion is measured with: `scratch`, `lite0`, or a transformers model by hub id or path."""

from __future__ import annotations

from diffii.classifiers.job import Blend, Classifier, Job
from diffii.classifiers.lite0 import Lite0
from diffii.classifiers.scratch import Scratch


def classifier(name: str, long_tailed: bool = False) -> Classifier:
    """The classifier of this name. `long_tailed`: it is to propose learning rates for a long tail.

    Raises ModelError when its packages or weights are missing.
    """
    if name == Scratch.name:
        return Scratch()
    if name == Lite0.name:
        return Lite0()
    from diffii.classifiers.pretrained import Pretrained

    return Pretrained(name, long_tailed=long_tailed)


__all__ = ["Blend", "Classifier", "Job", "classifier"]
