"""The embedded data set's three tasks: what is drawn, what is measured, and that nothing is in two sets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffii.errors import ConfigError
from diffii.garments.catalog import CLASSES, CONTEXTS
from diffii.garments.data import export_pool
from diffii.garments.tasks import few_shot, long_tail, out_of_distribution, tail_count


def test_few_shots_are_those_that_the_demo_draws(tmp_path: Path) -> None:
    task = few_shot(2, seed=4)
    assert task.counts == (2,) * 10
    export_pool(tmp_path, 2, seed=4)
    for sample in task.train:
        with Image.open(tmp_path / task.classes[sample.label] / f"{sample.where}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), sample.pixels)
    assert {s.where for s in few_shot(2, seed=5).train} != {s.where for s in task.train}
    with pytest.raises(ConfigError, match="shots must be 1 to 100"):
        few_shot(101, seed=0)


def test_every_held_out_photo_is_measured_in_every_context() -> None:
    task = few_shot(1, seed=0)
    assert (len(task.test), len(task.validation)) == (10_000, 1_500)
    assert Counter(sample.group for sample in task.test) == dict.fromkeys(range(5), 2000)
    assert Counter(sample.label for sample in task.test) == dict.fromkeys(range(10), 1000)
    assert [CLASSES[label] for label in task.partitions["novel"]] == ["Coat", "Sandal"]
    assert len(task.partitions["base"]) == 8
    images = {
        sample.pixels.tobytes() for sample in (*task.train, *task.validation, *task.test) if sample.pixels is not None
    }
    assert len(images) == 10 + 10_000 + 1_500


def test_a_long_tail_falls_from_100_by_the_imbalance() -> None:
    assert [tail_count(rank, 100) for rank in range(10)] == [100, 59, 35, 21, 12, 7, 4, 2, 1, 1]
    assert [(tail_count(0, factor), tail_count(9, factor)) for factor in (1, 10, 50)] == [
        (100, 100),
        (100, 10),
        (100, 2),
    ]
    task, other = long_tail(100, seed=0), long_tail(100, seed=1)
    assert sorted(task.counts) == sorted(other.counts) == [1, 1, 2, 4, 7, 12, 21, 35, 59, 100]
    assert task.counts != other.counts, "another class is at the head"
    assert sorted(task.counts[label] for label in task.partitions["few"]) == [1, 1, 2, 4, 7, 12]
    assert sorted(task.counts[label] for label in task.partitions["many"]) == [59, 100]
    with pytest.raises(ConfigError, match="at least 1"):
        long_tail(0, seed=0)


def test_a_class_is_seen_in_one_context_and_measured_in_the_others() -> None:
    task = out_of_distribution(5, seed=3)
    own = {label: {s.where.rpartition("-")[2] for s in task.train if s.label == label} for label in range(10)}
    assert all(len(contexts) == 1 for contexts in own.values())
    assert Counter(next(iter(contexts)) for contexts in own.values()) == dict.fromkeys(CONTEXTS, 2)
    assert len(task.test) == 8_000
    assert all(task.groups[sample.group] not in own[sample.label] for sample in task.test)
    assert all(task.groups[sample.group] in own[sample.label] for sample in task.validation)
    assert len(task.validation) == 300
