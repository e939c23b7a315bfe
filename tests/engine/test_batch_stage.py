"""The size of model calls: measured for a new run, kept to by every later start, and never against the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diffii.batch_size import SIZES
from diffii.errors import OutputError
from engine.expand import expand
from engine.prepare import load_run
from engine.progress import Silent
from engine.settings import from_flat
from engine.verify import verify
from tests.engine.sources import PLAIN, garments

SMALL: dict[str, Any] = {
    **PLAIN,
    "inversion.steps": 2,
    "generation.steps": 2,
    "commit.chunk_size": 8,
    "expansion.factor": 3,
    "actors.max": 1,
}


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def begun(
    source: Path, out: Path, more: dict[str, Any], notes: Notes | None = None, forks: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Expand, and what the log says of it."""
    settings = {**SMALL, "source.url": str(source), "output.url": str(out), **more}
    expand(from_flat(settings), progress=notes, forks=forks)
    first = load_run(str(out)).history.opening
    assert first is not None
    return first.identity


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return garments(tmp_path_factory.mktemp("measured") / "source", shots=2, classes=2)


@pytest.mark.usefixtures("ray_here")
def test_what_was_measured_is_kept_to(source: Path, tmp_path: Path) -> None:
    out, notes = tmp_path / "out", Notes()
    identity = begun(source, out, {"engine.probe": "on"}, notes)
    sizes = {key: identity[key] for key in ("generation.micro_batch", "inversion.micro_batch")}
    # No larger than a chunk, which has 8 rows.
    assert set(sizes.values()) <= {size for size in SIZES if size <= 8}
    assert (
        sum(note.startswith(tuple(f"{key}={value} on cpu" for key, value in sizes.items())) for note in notes.said) == 2
    )
    # Grown without a word of them, and without another look.
    notes = Notes()
    assert begun(source, out, {"expansion.factor": 4}, notes) == identity
    assert not [note for note in notes.said if "measur" in note or "micro_batch" in note]
    assert verify(str(out)).kept == 16
    with pytest.raises(OutputError, match=r"generation\.micro_batch"):
        begun(source, out, {"generation.micro_batch": 7})
    # A fork takes them along: otherwise nothing that was made for the old set would fit.
    taken = begun(source, tmp_path / "fork", {"engine.probe": "on", "expansion.seed": 1}, forks=(str(out),))
    assert {key: taken[key] for key in sizes} == sizes


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_what_the_user_set_is_not_measured(source: Path, tmp_path: Path) -> None:
    notes = Notes()
    given = {"generation.micro_batch": 3, "inversion.micro_batch": 5}
    identity = begun(source, tmp_path / "given", {"engine.probe": "on", **given}, notes)
    assert {key: identity[key] for key in given} == given
    assert not [note for note in notes.said if "measur" in note]


@pytest.mark.usefixtures("ray_here")
def test_without_a_gpu_nobody_measures_unless_told_to(source: Path, tmp_path: Path) -> None:
    notes = Notes()
    identity = begun(source, tmp_path / "out", {}, notes)
    assert (identity["generation.micro_batch"], identity["inversion.micro_batch"]) == (16, 16)
    assert not [note for note in notes.said if "measur" in note]
