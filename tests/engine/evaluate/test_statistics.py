"""Means and intervals, against values worked by hand."""

from __future__ import annotations

import io
import math

import pytest
from PIL import Image

from engine.evaluate.plot import plot
from engine.evaluate.statistics import interval, paired, summary


def row(arm: str, seed: int, accuracy: float, few: float | None = None, classifier: str = "scratch") -> dict:
    empty = dict.fromkeys(("worst_group", "novel", "many", "medium", "base", "group_average"))
    return {"arm": arm, "seed": seed, "classifier": classifier, "accuracy": accuracy, "few": few, **empty}


def test_an_interval_by_hand() -> None:
    # Mean 3, deviation sqrt(2.5), and t(0.975, 4) = 2.776.
    found = interval([1, 2, 3, 4, 5])
    assert (found.mean, found.seeds) == (3, 5)
    assert found.half == pytest.approx(2.776 * math.sqrt(2.5 / 5), abs=1e-3)
    assert (str(found), found.difference) == ("3.0 ± 2.0", "+3.0 ± 2.0")


def test_one_seed_has_no_interval() -> None:
    assert math.isnan(interval([4.0]).half)
    assert (str(interval([4.0])), interval([-4.0]).difference) == ("4.0", "-4.0")
    with pytest.raises(ValueError, match="no value"):
        interval([])


def test_differences_are_paired_by_seed() -> None:
    ours, theirs = {0: 30.0, 1: 50.0, 2: 70.0, 9: 1.0}, {2: 68.0, 1: 49.0, 0: 29.0, 7: 99.0}
    found = paired(ours, theirs)
    assert found is not None
    assert (found.mean, found.seeds) == (pytest.approx(4 / 3), 3)
    # Between seeds accuracies differ by 20, the differences by less than one.
    assert found.half == pytest.approx(4.303 * math.sqrt(1 / 3 / 3), abs=1e-3)
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_a_summary_tells_arms_classifiers_and_figures_apart() -> None:
    rows = [row("real", seed, 30 + seed, few=10.0) for seed in range(3)]
    rows += [row("noise", seed, 40 + seed) for seed in range(3)]
    rows += [row("diff-ii", seed, 42 + 2 * seed) for seed in range(3)]
    rows += [row("real", 0, 70.0, classifier="lite0")]
    lines = summary(rows, ("real", "noise", "diff-ii"))
    names = [(line.classifier, line.figure, line.arm) for line in lines]
    assert names == [
        ("lite0", "accuracy", "real"),
        ("scratch", "accuracy", "real"),
        ("scratch", "accuracy", "noise"),
        ("scratch", "accuracy", "diff-ii"),
        ("scratch", "few", "real"),
    ]
    ours = lines[3]
    assert {other: found.mean for other, found in ours.over.items()} == {"real": 13.0, "noise": 3.0}
    assert "real" not in lines[1].over
    with Image.open(io.BytesIO(plot(lines, "accuracy", "title"))) as image:
        assert image.width > 900, "two panels"
