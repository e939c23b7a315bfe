"""The page: one HTML file with everything in it, which needs no script and asks nothing of any server."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import jinja2

from engine.report.angles import Outcomes, counted_as
from engine.report.measure import KID_ROWS, Figures
from engine.report.pictures import OPEN, Sheet
from engine.report.sample import Sample
from engine.report.words import METRICS, NONE, percent
from engine.run import Run

BINS = 24
"""Bars of the circle of all classes, 15 degrees each."""
LISTED = 1000
"""Classes that are listed, at most; `report.json` has all of them."""
BARS = 40
"""Classes whose bars are unfolded."""
_UNSET = ("", {}, [], None)
_COLOURS = {"near-copy": "copy", "near-real": "real", "poisoned": "poisoned"}
_REASONS = {
    "near-copy": "near-copy: it shows what an earlier synthetic image of its class shows",
    "near-real": "near-real: it shows what a real image of its class shows",
    "poisoned": "poisoned: it could not be made",
}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that the page tells."""

    run: Run
    sample: Sample
    seed: int
    embedder: str
    """Whose features were measured."""
    outcomes: Outcomes
    sheets: list[Sheet]
    every: Figures
    each: list[Figures]
    provenance: dict[str, str]
    licences: list[tuple[str, str]]


def render(facts: Facts) -> str:
    """The HTML. Names of classes, files and settings are a stranger's text, and are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("engine.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"cos": math.cos, "sin": math.sin, "tau": math.tau}
    return environment.get_template("report.html").render(**_view(facts))


def _view(facts: Facts) -> dict[str, Any]:
    run, history = facts.run, facts.run.history
    lost = Counter[str]()
    for (outcome, reason), rows in history.lost.items():
        lost[counted_as(outcome, reason)] += rows
    metrics = [
        (metric, value, metric.real(facts.every)) for metric in METRICS if (value := metric.value(facts.every)) != NONE
    ]
    labels = [label for label, images in enumerate(run.source.by_class) if images]
    listed = labels[:LISTED]
    columns = [metric for metric in METRICS if any(metric.value(facts.each[label]) != NONE for label in listed)]
    return {
        "name": run.storage.url.rstrip("/").rsplit("/", 1)[-1],
        "kept": history.kept,
        "decided": history.rows,
        "complete": _complete(run),
        "classes": len(labels),
        "real": len(run.source.images),
        "method": _METHODS.get(run.plan.arm.name, run.plan.arm.name),
        "on_circle": run.plan.arm.takes == "inversions",
        "cards": _cards(facts, lost),
        "metrics": metrics,
        "measured": facts.sample,
        "seed": facts.seed,
        "features": facts.embedder,
        "rose": _rose(facts),
        "theta": _mean_theta(facts.outcomes),
        "acceptance": _acceptance(facts, listed),
        "acceptance_open": BARS,
        "reasons": [
            (reason, _COLOURS.get(reason, "other"), _REASONS.get(reason, reason), lost[reason]) for reason in lost
        ],
        "outcomes": facts.outcomes,
        "sheets": [(sheet, facts.outcomes.classes[sheet.label]) for sheet in facts.sheets],
        "open": OPEN,
        "columns": columns,
        "table": [
            (run.source.classes[label], facts.each[label], [metric.value(facts.each[label]) for metric in columns])
            for label in listed
        ],
        "unlisted": len(labels) - len(listed),
        "none_mark": NONE,
        "kid_rows": KID_ROWS,
        "settings": {key: _text(value) for key, value in run.config.identity().items() if value not in _UNSET},
        "provenance": facts.provenance,
        "licences": facts.licences,
    }


_METHODS = {
    "diff-ii": "by inversion circle interpolation (Diff-II)",
    "circle": "by inversion circle interpolation without suffixes, a control for Diff-II",
    "slerp": "by interpolation between two inversions, a control for Diff-II",
    "noise": "from fresh noise with what was learned of them, a control for Diff-II",
    "diff-aug": "by editing each towards its own class (Diff-Aug)",
    "diff-mix": "by editing each towards another class (Diff-Mix)",
}
"""How images of an arm come from real ones."""


def _complete(run: Run) -> bool:
    return bool(run.waves) and run.open_wave() is None


def _cards(facts: Facts, lost: Counter[str]) -> list[tuple[str, str, str]]:
    """(figure, what it is, what to compare it with): the few that a reader wants first."""
    history, every = facts.run.history, facts.every
    targets = sum(facts.run.targets)
    share = lost.total() / max(1, history.rows)
    often = lost.most_common(1)
    cards = [
        (f"{history.kept:,}", "images kept", f"{targets:,} wanted"),
        (percent(share), "of rows lost", f"mostly {often[0][0]}" if often else "none rejected, none failed"),
    ]
    if every.judged is not None:
        cards.append((percent(every.judged), "right by the judge", f"real images: {percent(every.judged_real)}"))
    else:
        cards.append(
            (percent(every.nearest), "nearest to their own class", f"real images: {percent(every.nearest_real)}")
        )
    if every.distance is not None:
        real = NONE if every.distance_real is None else f"{every.distance_real:.2f}"
        cards.append((f"{every.distance:.2f}", "distance within a class", f"real images: {real}"))
    if every.coverage is not None:
        cards.append((percent(every.coverage), "of real images covered", f"precision {percent(every.precision)}"))
    if every.memorised is not None:
        cards.append((percent(every.memorised), "memorised", f"real images held out: {percent(every.memorised_real)}"))
    return cards


def _rose(facts: Facts) -> list[tuple[float, float, float, float]]:
    """Per bin (from, to, kept, lost): angles in radians, heights as shares of the fullest bin of their kind."""
    kept = _bins(facts.sample.rows["phi"].to_pylist())
    lost = _bins([phi for outcome in facts.outcomes.classes for phi in outcome.lost_phi])
    edges = [math.tau * k / BINS for k in range(BINS + 1)]
    return [(edges[k], edges[k + 1], kept[k], lost[k]) for k in range(BINS)]


def _bins(angles: list[float]) -> list[float]:
    counts = Counter(min(BINS - 1, int(phi % math.tau / math.tau * BINS)) for phi in angles)
    most = max(counts.values(), default=1)
    return [counts[k] / most for k in range(BINS)]


def _mean_theta(outcomes: Outcomes) -> float | None:
    known = [told.theta for told in outcomes.classes if told.theta is not None]
    return sum(known) / len(known) if known else None


def _acceptance(facts: Facts, labels: list[int]) -> list[dict[str, Any]]:
    rows = []
    for label in labels:
        told = facts.outcomes.classes[label]
        parts = [("kept", "kept", told.kept)]
        parts += [(reason, _COLOURS.get(reason, "other"), count) for reason, count in told.lost.most_common()]
        shares = [(reason, colour, count, 100 * count / max(1, told.tried)) for reason, colour, count in parts if count]
        rows.append({"name": facts.run.source.classes[label], "told": told, "parts": shares})
    return rows


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} = {words}" for key, words in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    return str(value)
