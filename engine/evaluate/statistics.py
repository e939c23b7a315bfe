"""Mean, 95 % t-interval, and paired differences over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from engine.evaluate.results import FIGURES

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """`mean` plus and minus `half`; `half` is NaN where one seed alone was measured."""

    mean: float
    half: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + ("" if math.isnan(self.half) else f" ± {self.half:.1f}")

    @property
    def difference(self) -> str:
        return f"{self.mean:+.1f}" + ("" if math.isnan(self.half) else f" ± {self.half:.1f}")


@dataclass(frozen=True, slots=True)
class Line:
    """What a classifier came to in one arm: a figure and its paired differences to other arms, by seed."""

    classifier: str
    arm: str
    figure: str
    value: Interval
    over: Mapping[str, Interval]
    """Other arm -> the mean of this arm's figure less the other's of the same seed."""
    by_seed: Mapping[int, float]


def interval(values: Sequence[float]) -> Interval:
    """Mean and half-width of the 95 % t-interval of independent values. Raises ValueError without values."""
    if not len(values):
        raise ValueError("there is no value")
    mean, count = float(np.mean(values)), len(values)
    if count == 1:
        return Interval(mean, math.nan, 1)
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    return Interval(mean, float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1)) * error, count)


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Interval | None:
    """The interval of ours - theirs over the seeds that both have; None where there are none."""
    seeds = sorted(ours.keys() & theirs.keys())
    return interval([ours[seed] - theirs[seed] for seed in seeds]) if seeds else None


def summary(
    rows: Sequence[Mapping[str, Any]], arms: Sequence[str], against: Sequence[str] = ("real", "noise")
) -> list[Line]:
    """Lines in the order classifier, figure, arm. `rows` are those of one task, one per (arm, classifier, seed)."""
    lines: list[Line] = []
    for classifier in sorted({row["classifier"] for row in rows}):
        for figure in FIGURES:
            found: dict[str, dict[int, float]] = {}
            for arm in arms:
                mine = [row for row in rows if (row["arm"], row["classifier"]) == (arm, classifier)]
                values = {row["seed"]: row[figure] for row in mine if row[figure] is not None}
                if values:
                    found[arm] = values
            for arm, values in found.items():
                over = {other: paired(values, found[other]) for other in against if other != arm and other in found}
                told = {other: difference for other, difference in over.items() if difference is not None}
                lines.append(Line(classifier, arm, figure, interval(list(values.values())), told, values))
    return lines
