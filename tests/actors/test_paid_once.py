"""Law 3, counted inside the actors: once a row's outcome is staged, the model is never asked for it again."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.generator import Generator
from diffii.dataset import layout
from engine import expand as expansion
from engine.run import Run
from engine.settings import from_flat
from tests.actors.recorder import Recorder
from tests.engine.sources import PLAIN, garments

pytestmark = pytest.mark.slow

SETTINGS: dict[str, Any] = {
    **PLAIN,
    "inversion.steps": 2,
    "inversion.micro_batch": 4,
    "generation.steps": 2,
    "generation.micro_batch": 4,
    "commit.chunk_size": 4,
    "output.shard_rows": 8,
    "actors.max": 2,
}
RAISES, CONSTANT = {(0, 1), (3, 0)}, {(1, 0), (2, 3), (2, 4)}
"""(label, ordinal) of rows that the model cannot make, and of rows whose image shows nothing."""
BOOK = f"{layout.OWN}/book"


class Counting(Generator):
    """The generator, keeping a book of which rows its model is asked for and which are staged."""

    def make_chunk(self, chunk: dict[str, Any]) -> dict[str, Any]:
        result = super().make_chunk(chunk)
        self._write("staged", chunk["sample_id"])
        return result

    def _model(self, rows: list[dict[str, Any]], starts: list[Any], batch: list[int]) -> np.ndarray:
        self._write("asked", sorted({rows[index]["sample_id"] for index in batch}))
        places = [(rows[index]["label"], rows[index]["ordinal"]) for index in batch]
        if RAISES & set(places):
            raise RuntimeError("a kernel asserts")
        images = super()._model(rows, starts, batch)
        images[[place in CONSTANT for place in places]] = 0.5
        return images

    def _write(self, what: str, sample_ids: list[str]) -> None:
        # One write to a file opened for appending is not torn, whoever else writes.
        book = os.open(Path(self._storage.root) / BOOK, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(book, "".join(f"{what} {sample_id}\n" for sample_id in sample_ids).encode())
        os.close(book)


class Interrupted(Exception):
    """The user stops the run."""


class Impatient(Recorder):
    """Stops the run when the second chunk of images is there."""

    def __init__(self) -> None:
        super().__init__()
        self.stages: Counter[str] = Counter()
        self._stage = ""

    def stage(self, name: str, total: int, done: int, unit: str = "images") -> None:
        self._stage = name

    def advance(self, images: int, lost: int = 0) -> None:
        self.stages[self._stage] += 1
        if self.stages["generate"] == 2:
            raise Interrupted


def read_book(out: Path) -> tuple[list[str], list[str], list[str]]:
    """Sample ids asked for, those staged, and those asked for once they were staged."""
    asked: list[str] = []
    done: list[str] = []
    again: list[str] = []
    for line in (out / BOOK).read_text().splitlines():
        what, sample_id = line.split()
        if what == "staged":
            done.append(sample_id)
            continue
        asked.append(sample_id)
        if sample_id in done:
            again.append(sample_id)
    return asked, done, again


def test_no_outcome_is_paid_for_twice(tmp_path: Path, ray_here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a run that is interrupted, its resume, and its growth, with rejected and poisoned rows in each."""
    source, out = garments(tmp_path / "source", shots=2), tmp_path / "out"
    monkeypatch.setattr(expansion, "Generator", Counting)

    def expand(factor: int, progress: Recorder) -> Run:
        settings = {**SETTINGS, "source.url": str(source), "output.url": str(out), "expansion.factor": factor}
        return expansion.expand(from_flat(settings), progress)

    with pytest.raises(Interrupted):
        expand(2, Impatient())
    assert len(set(read_book(out)[1])) >= 8
    expand(2, Recorder())
    run = expand(3, Recorder())
    assert run.complete

    asked, done, again = read_book(out)
    assert again == []
    planned = [row for wave in run.waves for row in run.plan.rows(wave, 0, run.plan.row_count(wave))]
    assert set(asked) == set(done) == {row.sample_id for row in planned}
    assert len(done) == len(set(done)), "no chunk was made twice"
    lost = Counter(outcome for entry in run.commits() for outcome, rows in entry.lost.items() for _ in rows)
    places = {(row.label, row.ordinal) for row in planned}
    assert lost == {"poisoned": len(RAISES & places), "rejected": len(CONSTANT & places)}
    assert places >= RAISES | CONSTANT
