"""The probe: one process with the model and its share of a card, before a plan is made; see `diffii.batch_size`."""

from __future__ import annotations

from dataclasses import dataclass

import ray

from actors.attempts import Process
from actors.board import COMPUTING, Watched
from actors.desk import Desk
from actors.model import ModelSpec, load
from diffii.batch_size import SIZES, Measured, generating, inverting


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSpec(Watched):
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
    desk = Desk(spec, Process(spec.run, ray.get_runtime_context().get_node_id()), place="probe")
    backbone = load(spec.model)
    backbone.epsilon = desk.moving(backbone.epsilon)
    desk.open()
    sizes = [size for size in SIZES if size <= spec.largest]
    with desk.holding("the measuring of model calls") as hold:
        hold.at(COMPUTING)
        return Probed(
            device=backbone.record.device,
            generation=generating(backbone, spec.guided, spec.share, sizes) if spec.generation else None,
            inversion=inverting(backbone, spec.share, sizes) if spec.inversion else None,
        )
