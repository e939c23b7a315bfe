"""The two micro-batches of a run: set by the user, or else as the log has them, or else measured (`batch_stage`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffii.dataset.history import History
from engine.config import Config
from engine.defaults import explicit_keys, with_values
from engine.plan import Plan

GENERATION, INVERSION = "generation.micro_batch", "inversion.micro_batch"


def unset(config: Config) -> list[str]:
    """Those that nobody set."""
    explicit = explicit_keys(config)
    return [key for key in (GENERATION, INVERSION) if key not in explicit]


def as_begun(plan: Plan, history: History) -> Plan:
    """The plan with what the log says where nobody says otherwise: what was measured once is kept to."""
    first = history.opening
    return plan if first is None else changed(plan, {key: first.identity[key] for key in unset(plan.config)})


def changed(plan: Plan, values: Mapping[str, Any]) -> Plan:
    """The same plan with some of its settings changed, before it has any row."""
    if not values:
        return plan
    return Plan(with_values(plan.config, values), plan.source, plan.weights, plan.embedder, plan.learned, plan.growths)
