"""The progress line in a log, and a terminal that Ray leaves alone when an actor's process ends."""

from __future__ import annotations

import io
import subprocess
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from cluster import progress as progress_module
from cluster.progress import ProgressLine
from cluster.show import rate
from engine.progress import STARTING_SECONDS, Actors


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def lines(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_waiting_for_capacity_is_said_at_once_and_once(console: Console) -> None:
    with ProgressLine(console) as progress:
        progress.stage("generate", 40, 0)
        progress.actors(Actors(wanted=4))
        for seconds in (0, 2, 4):
            progress.actors(Actors(wanted=4, alone=STARTING_SECONDS + 600 + seconds))
        (line,) = lines(console)
        assert line == "generate: 0/40 images, 0 committed, waiting for capacity for 10 min (0 of 4 actors)"


def test_a_log_shows_how_many_actors_work(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "SAY_EVERY", -1.0)
    with ProgressLine(console) as progress:
        progress.stage("generate", 40, 0)
        progress.actors(Actors(wanted=4, here=4, ready=4, busy=3))
        assert lines(console)[-1] == "generate: 0/40 images, 0 committed, 3 of 4 actors busy"
        progress.advance(40)
        assert "actors" not in lines(console)[-1], "done"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (400.0, "train: 10/78 trainings, 40 s each, 45.3 min left"),
        (4.0, "train: 10/78 trainings, 2.5 trainings/s, 27 s left"),
    ],
)
def test_a_log_says_how_fast_and_how_long(
    console: Console, monkeypatch: pytest.MonkeyPatch, seconds: float, said: str
) -> None:
    monkeypatch.setattr(progress_module, "SAY_EVERY", -1.0)
    now = 100.0
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(monotonic=lambda: now))
    with ProgressLine(console) as progress:
        progress.stage("train", 78, 0, "trainings")
        now += seconds
        progress.advance(10)
        assert lines(console)[-1] == said
        progress.advance(68)
        assert "left" not in lines(console)[-1]


def test_a_rate_is_told_in_digits() -> None:
    assert [rate(each, "images") for each in (250.3, 12.34, 0.31, 0.02)] == [
        "250 images/s",
        "12.3 images/s",
        "0.3 images/s",
        "50 s each",
    ]


def test_a_log_has_one_line_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich takes what is no terminal for eighty columns wide."""
    monkeypatch.setattr(progress_module, "SAY_EVERY", -1.0)
    narrow = Console(file=io.StringIO(), width=20)
    with ProgressLine(narrow) as progress:
        progress.stage("generate", 40, 3)
        progress.actors(Actors(wanted=4, here=4, ready=4, busy=3))
    assert len(lines(narrow)) == 2


def test_a_stage_begins_without_the_actors_of_the_last(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "SAY_EVERY", -1.0)
    with ProgressLine(console) as progress:
        progress.stage("invert", 8, 0)
        progress.actors(Actors(wanted=4, here=4, ready=4, busy=3))
        progress.stage("generate", 40, 0)
        progress.advance(1)
        assert "busy" not in lines(console)[-1]


def test_a_note_is_printed_as_it_is(console: Console) -> None:
    with ProgressLine(console) as progress:
        progress.note("an actor ended ([bold] of a path [/x]) and was replaced")
    assert lines(console) == ["an actor ended ([bold] of a path [/x]) and was replaced"]


DYING = """
import os
import pyarrow as pa
from cluster.local import local_ray
from engine.stream import Pool, stream

class Dies:
    def __init__(self, folder): self.folder = folder
    def __call__(self, table):
        try:
            os.mkdir(self.folder)
        except FileExistsError:
            return table
        os._exit(1)

import sys, tempfile, time
with tempfile.TemporaryDirectory() as folder, local_ray(actors=1):
    rows = list(stream(pa.table({"task": [0]}), Dies, folder + "/died", Pool(min=1, max=1, gpus=0.0)))
    time.sleep(3)  # Ray reports from a thread
    assert rows == [{"task": 0}] and os.path.isdir(folder + "/died")
"""


@pytest.mark.slow
def test_ray_does_not_write_over_the_terminal_when_a_process_ends() -> None:
    done = subprocess.run([sys.executable, "-c", DYING], capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
