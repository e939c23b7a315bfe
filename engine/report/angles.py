"""What became of rows, class by class, and where on their circles they began."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from engine.report.sample import Sample
from engine.run import Run

DECIDED = 1_000_000
"""Rows whose outcome is read class by class, from the first on: the log of more takes minutes."""
DOTS = 60
"""Rows of each outcome drawn on one circle: more is a ring."""


@dataclass
class ClassOutcomes:
    """One class. Angles are radians, 0 at the first parent's inversion."""

    kept: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    """Reason -> rows, a poisoned row's reason being `poisoned`."""
    kept_phi: list[float] = field(default_factory=list)
    lost_phi: list[float] = field(default_factory=list)
    theta: float | None = None
    """Mean angle between two parents' inversions."""

    @property
    def tried(self) -> int:
        return self.kept + self.lost.total()


@dataclass(frozen=True)
class Outcomes:
    classes: list[ClassOutcomes]
    rows: int
    """Rows whose outcomes were read: the reasons of a class are out of so many, its kept rows of all."""
    complete: bool
    """Whether these are all."""


def outcomes(run: Run, sample: Sample) -> Outcomes:
    """Kept rows from the log's sums; lost ones from its entries, up to `DECIDED` rows; angles of a sample."""
    found = [ClassOutcomes(kept=kept) for kept in run.kept()]
    size, rows = run.config.commit.chunk_size, 0
    for entry in run.commits():
        if rows >= DECIDED:
            break
        rows += entry.rows
        if not entry.lost:
            continue
        wave, first = run.waves[entry.wave], entry.first * size
        plan = run.plan_of(wave)
        labels = plan.labels(wave, first, first + entry.rows)
        for outcome, reasons in entry.lost.items():
            for row, reason in reasons.items():
                told = found[int(labels[int(row)])]
                told.lost[counted_as(outcome, reason)] += 1
                if len(told.lost_phi) < DOTS:
                    told.lost_phi.append(plan.rows(wave, first + int(row), first + int(row) + 1)[0].phi)
    _add_kept(found, sample)
    return Outcomes(found, rows, rows >= run.history.rows)


def counted_as(outcome: str, reason: str) -> str:
    """Under what a lost row is counted: why it was rejected; poisoned rows are one kind, whatever their errors."""
    return reason if outcome == "rejected" else outcome


def _add_kept(found: list[ClassOutcomes], sample: Sample) -> None:
    labels = sample.rows["label"].to_numpy()
    phi, theta = sample.rows["phi"].to_numpy(), sample.rows["theta"].to_numpy()
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        step = max(1.0, len(of_class) / DOTS)
        some = of_class[[int(k * step) for k in range(min(DOTS, len(of_class)))]]
        told = found[int(label)]
        told.kept_phi = [float(angle) for angle in phi[some]]
        known = theta[of_class][np.isfinite(theta[of_class])]
        told.theta = float(known.mean()) if len(known) else None
