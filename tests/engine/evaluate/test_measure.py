"""A whole study through a real Ray, on a user's own folders: small, and twice."""

from __future__ import annotations

import time
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from diffii.classifiers.lite0 import Lite0
from diffii.dataset.tables import read_table
from diffii.errors import OutputError
from engine.evaluate import Questions, Study, measure
from engine.evaluate.measure import _Trainings, evaluate
from engine.evaluate.publish import publish
from engine.evaluate.training import Training
from engine.progress import Silent
from engine.settings import from_flat
from tests.engine.sources import PLAIN, garments

SMALL: dict[str, Any] = {**PLAIN, "generation.steps": 2, "generation.micro_batch": 4, "expansion.factor": 1}


def study(folder: Path, **more: Any) -> Study:
    questions = Questions(source=str(folder / "mine"), test=str(folder / "other"))
    settings: dict[str, Any] = {"arms": ("real", "noise"), "classifiers": ("lite0",), "seeds": 1, "tuning_seeds": 0}
    return Study(url=str(folder / "study"), questions=questions, config=from_flat(SMALL), **settings | more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    garments(tmp_path / "mine", shots=3, classes=2)
    garments(tmp_path / "other", shots=2, classes=2)
    return tmp_path


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_study_is_measured_once_and_grows(folder: Path, ray_here: None) -> None:
    first = study(folder)
    rows = evaluate(first, Silent())
    assert [(row["arm"], row["seed"], row["real"], row["synthetic"]) for row in rows] == [
        ("real", 0, 6, 0),
        ("noise", 0, 6, 6),
    ]
    assert all(0 <= row["accuracy"] <= 100 and row["worst_group"] is None for row in rows)
    assert (rows[1]["p"], rows[1]["lr"]) == (0.5, Lite0.learning_rates[1])
    before = files(folder / "study")
    assert evaluate(first, Silent()) == rows
    assert files(folder / "study") == before, "what is measured is not measured again"
    lines = publish(first, rows, lambda _: None)
    assert [line.arm for line in lines] == ["real", "noise"]
    assert "| lite0 | noise |" in (folder / "study" / "mine.md").read_text()
    assert (folder / "study" / "mine.png").stat().st_size > 5_000
    more = evaluate(study(folder, arms=("real", "noise", "mixup")), Silent())
    assert more[:2] == rows and more[2]["arm"] == "mixup"


def test_a_training_that_failed_ends_a_study_at_the_next_one(folder: Path, ray_here: None) -> None:
    asked = study(folder).questions
    lost = str(folder / "lost")
    order = Training(
        questions=asked, seed=0, arm="noise", set_url=lost, classifier="lite0", p=0.5, lr=0.01, choosing=False, cache=""
    )
    with _Trainings(Silent()) as trainings:
        trainings.submit(order, lambda _: pytest.fail("it has no figures"))
        assert not wait(trainings._open, timeout=120).not_done
        with pytest.raises(OutputError, match="lost"):
            trainings.submit(order, lambda _: None)


def test_an_interruption_does_not_wait_for_trainings(
    folder: Path, ray_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a training takes with a large model, nobody who presses Ctrl-C will wait for."""
    begun = folder / "begun"

    def endless(order: Training) -> dict[str, Any]:
        begun.touch()
        time.sleep(3600)
        return {}

    monkeypatch.setattr(measure, "train", endless)
    order = Training(
        questions=study(folder).questions,
        seed=0,
        arm="real",
        set_url="",
        classifier="lite0",
        p=0.0,
        lr=0.01,
        choosing=False,
        cache="",
    )
    with pytest.raises(KeyboardInterrupt), _Trainings(Silent()) as trainings:
        for _ in range(5):
            trainings.submit(order, lambda _: pytest.fail("it never ends"))
        while not begun.exists():
            time.sleep(0.1)
        raise KeyboardInterrupt
    assert all(future.done() for future in trainings._open)


def test_exploring_does_not_look_at_test_images(folder: Path, ray_here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[Training] = []
    submit = _Trainings.submit

    def watched(self: _Trainings, order: Training, then: Any) -> None:
        orders.append(order)
        submit(self, order, then)

    monkeypatch.setattr(_Trainings, "submit", watched)
    (row,) = evaluate(study(folder, arms=("real",), first_seed=1000), Silent())
    assert [order.choosing for order in orders] == [True]
    assert row["real"] == 4, "a third of three images is kept apart, and measured on"
    evaluate(study(folder, arms=("real",)), Silent())
    assert [order.choosing for order in orders] == [True, False]


@pytest.mark.slow
def test_settings_are_chosen_on_other_draws(folder: Path, ray_here: None) -> None:
    rows = evaluate(study(folder, arms=("noise",), tuning_seeds=1, p=0.5), Silent())
    tried = read_table((folder / "study" / "choices.parquet").read_bytes()).to_pylist()
    assert {(row["seed"], row["lr"]) for row in tried} == {(1000, lr) for lr in Lite0.learning_rates}
    assert {row["real"] for row in tried} == {4}, "a third of three images is kept apart while choosing"
    best = max(tried, key=lambda row: row["accuracy"])
    assert rows[0]["lr"] == min(row["lr"] for row in tried if row["accuracy"] == best["accuracy"])
