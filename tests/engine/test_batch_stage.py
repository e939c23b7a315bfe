"""The size of model calls: measured for a new run, kept to by every later start, and never against the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diffii.batch_size import SIZES
from diffii.errors import OutputError
from engine.batch_stage import settle_batches
from engine.expand import expand, pool_of
from engine.prepare import load_run, prepare
from engine.run import Run, begin
from engine.settings import from_flat
from engine.verify import verify
from tests.actors.recorder import Recorder
from tests.engine.sources import PLAIN, garments

KEYS = ("generation.micro_batch", "inversion.micro_batch")
SMALL: dict[str, Any] = {
    **PLAIN,
    "inversion.steps": 2,
    "generation.steps": 2,
    "commit.chunk_size": 8,
    "expansion.factor": 3,
    "actors.max": 1,
}


def begun(
    source: Path, out: Path, more: dict[str, Any], notes: Recorder | None = None, forks: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Begin a run or go on with it, up to its first entry; what that says."""
    run = prepare(from_flat({**SMALL, "source.url": str(source), "output.url": str(out), **more}))
    settle_batches(run, pool_of(run.config), notes or Recorder(), forks)
    begin(run)
    return identity(load_run(str(out)))


def identity(run: Run) -> dict[str, Any]:
    first = run.history.opening
    assert first is not None
    return first.identity


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return garments(tmp_path_factory.mktemp("measured") / "source", shots=2, classes=2)


@pytest.mark.usefixtures("ray_here")
def test_what_was_measured_is_kept_to(source: Path, tmp_path: Path) -> None:
    out, notes = tmp_path / "out", Recorder()
    first = begun(source, out, {"engine.probe": "on"}, notes)
    sizes = {key: first[key] for key in KEYS}
    # No larger than a chunk, which has 8 rows.
    assert set(sizes.values()) <= {size for size in SIZES if size <= 8}
    measured = tuple(f"{key}={value} on cpu" for key, value in sizes.items())
    assert sum(note.startswith(measured) for note in notes.notes) == 2
    assert any(state.here for state in notes.states), "it is watched as the other stages are"
    # Grown without a word of them, and without another look.
    notes = Recorder()
    assert begun(source, out, {"expansion.factor": 4}, notes) == first
    assert not notes.notes
    with pytest.raises(OutputError, match=r"generation\.micro_batch"):
        begun(source, out, {"generation.micro_batch": 7})
    # A fork takes them along: otherwise nothing that was made for the old set would fit.
    taken = begun(source, tmp_path / "fork", {"engine.probe": "on", "expansion.seed": 1}, forks=(str(out),))
    assert {key: taken[key] for key in KEYS} == sizes


@pytest.mark.usefixtures("ray_here")
def test_what_the_user_set_is_not_measured(source: Path, tmp_path: Path) -> None:
    notes, given = Recorder(), dict.fromkeys(KEYS, 3)
    first = begun(source, tmp_path / "given", {"engine.probe": "on", **given}, notes)
    assert {key: first[key] for key in given} == given
    assert not notes.notes


@pytest.mark.usefixtures("ray_here")
def test_without_a_gpu_nobody_measures_unless_told_to(source: Path, tmp_path: Path) -> None:
    notes = Recorder()
    first = begun(source, tmp_path / "out", {}, notes)
    assert [first[key] for key in KEYS] == [16, 16]
    assert not notes.notes


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_measured_run_is_made_and_grows(source: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "source.url": str(source), "output.url": str(tmp_path / "out"), "engine.probe": "on"}
    first = identity(expand(from_flat(settings)))
    assert identity(expand(from_flat({**settings, "expansion.factor": 4}))) == first
    assert verify(str(tmp_path / "out")).kept == 16
