"""What a training's answer is worth."""

from __future__ import annotations

import numpy as np
import pytest

from diffii.protocols.task import Sample, Task
from engine.evaluate.results import FIGURES
from engine.evaluate.training import _average, _figures


def task(groups: list[int], names: tuple[str, ...]) -> Task:
    test = tuple(Sample(f"{number}", 0, group) for number, group in enumerate(groups))
    return Task(name="t", seed=0, classes=("a", "b"), train=(Sample("x", 0),), validation=(), test=test, groups=names)


def test_groups_of_different_sizes_have_an_average_of_their_own() -> None:
    # Three of four right in the large group, none in the other.
    found = _figures(task([0, 0, 0, 0, 1], ("land", "water")), np.array([0, 0, 0, 1, 1]))
    assert (found["accuracy"], found["worst_group"]) == (pytest.approx(60), 0)
    assert found["group_average"] == pytest.approx(75 / 2)
    assert set(found) == set(FIGURES)


def test_without_groups_or_with_equal_ones_the_accuracy_is_the_average() -> None:
    one = _figures(task([0, 0], ("all",)), np.array([0, 1]))
    assert (one["worst_group"], one["group_average"]) == (None, None)
    two = _figures(task([0, 1], ("land", "water")), np.array([0, 1]))
    assert (two["accuracy"], two["worst_group"], two["group_average"]) == (50, 0, None)


def test_several_trainings_are_averaged_figure_by_figure() -> None:
    assert _average([{"accuracy": 40.0, "few": None}, {"accuracy": 50.0, "few": None}]) == {
        "accuracy": 45.0,
        "few": None,
    }
