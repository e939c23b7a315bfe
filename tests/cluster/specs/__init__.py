"""Specifications for tests."""

from __future__ import annotations

from pathlib import Path

from cluster.spec import Provider, Spec
from cluster.spec_file import load_spec

BIRDS = Path(__file__).with_name("birds.yaml")


def birds(provider: Provider, **changed: object) -> Spec:
    """The specification of the tests, with fields of its own changed."""
    gpu = {"azure": "A100"}.get(provider, "L4")
    return Spec.model_validate({**load_spec(BIRDS).model_dump(exclude_unset=True), "gpu": gpu, **changed})
