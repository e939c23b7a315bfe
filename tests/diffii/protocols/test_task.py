from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffii.errors import SourceError
from diffii.protocols.task import Sample, Task, score


def _task(**changes: object) -> Task:
    fields: dict[str, object] = {
        "name": "birds",
        "seed": 0,
        "classes": ("wren", "tit", "owl"),
        "train": (Sample("a", 0), Sample("b", 0), Sample("c", 2)),
        "validation": (),
        "test": (Sample("d", 0, 0), Sample("e", 1, 0), Sample("f", 2, 1), Sample("g", 2, 1), Sample("h", 1, 1)),
        "groups": ("land", "water", "air"),
        "partitions": {"many": (0,), "few": (1, 2), "none": ()},
    }
    return Task(**{**fields, **changes})  # pyright: ignore[reportArgumentType]


def test_score_tells_groups_and_partitions_apart() -> None:
    found = score(_task(), [0, 0, 2, 0, 1])
    assert found.accuracy == pytest.approx(60)
    assert found.groups == {"land": pytest.approx(50), "water": pytest.approx(200 / 3)}
    assert found.partitions == {"many": pytest.approx(100), "few": pytest.approx(50)}
    assert found.worst_group == pytest.approx(50)
    assert found.group_average == pytest.approx((50 + 200 / 3) / 2)


def test_score_refuses_another_number_of_predictions() -> None:
    with pytest.raises(ValueError, match="4 predictions for 5"):
        score(_task(), [0, 0, 0, 0])


def test_counts_name_every_class() -> None:
    assert _task().counts == (2, 0, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"train": (Sample("a", 3),)},
        {"validation": (Sample("a", -1),)},
        {"test": (Sample("a", 0, 3),)},
        {"train": ()},
        {"test": ()},
    ],
)
def test_a_task_that_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="birds"):
        _task(**changes)


def test_images_come_from_files_urls_and_memory(tmp_path: Path) -> None:
    pixels = np.full((4, 6, 3), 7, np.uint8)
    path = tmp_path / "a.b.png"
    Image.fromarray(pixels).save(path)
    samples = Sample(str(path), 0), Sample(f"file://{path}", 0), Sample("named", 0, pixels=pixels)
    for sample in samples:
        assert np.array_equal(np.asarray(sample.image()), pixels)


def test_a_lost_or_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"gone\.jpg cannot be read"):
        Sample(str(tmp_path / "gone.jpg"), 0).image()
    (tmp_path / "bad.jpg").write_bytes(b"<html>")
    with pytest.raises(SourceError, match=r"bad\.jpg is not a usable image"):
        Sample(str(tmp_path / "bad.jpg"), 0).image()
