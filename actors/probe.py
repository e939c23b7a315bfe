"""The probe: one process with the model and its share of a card, before a plan is made; see `diffii.batch_size`."""

from __future__ import annotations

from dataclasses import dataclass

from actors.model import ModelSpec, load
from diffii.batch_size import SIZES, Measured, generating, inverting


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSpec:
    """What is measured, and for whom."""

    model: ModelSpec
    guided: bool
    largest: int
    """No size beyond it is of use: a chunk has no more rows."""
    share: float = 1.0
    """Of a card, which an actor has."""
    generation: bool = True
    inversion: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What was measured where; None for what was not asked for, and empty where not even one row fits."""

    device: str
    generation: list[Measured] | None
    inversion: list[Measured] | None


def probe(spec: ProbeSpec) -> Probed:
    """Load the model and measure. Raises ModelError."""
    backbone = load(spec.model)
    sizes = [size for size in SIZES if size <= spec.largest]
    return Probed(
        device=backbone.record.device,
        generation=generating(backbone, spec.guided, spec.share, sizes) if spec.generation else None,
        inversion=inverting(backbone, spec.share, sizes) if spec.inversion else None,
    )
