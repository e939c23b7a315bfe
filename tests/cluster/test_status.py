"""`diffii status` from the output alone, without Ray or torch: how a run stands, how fast it is, how long it takes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from diffii.dataset import layout
from diffii.dataset.driver import Doing, read_driver
from diffii.dataset.storage import TEMPORARY, Storage
from engine.heartbeat import driving
from engine.progress import Silent
from engine.run import Run, begin
from engine.status import status
from engine.waves import run_waves
from tests.cluster.commands import SMALL, diffii, run
from tests.engine.imaginary_run import a_run, maker, packed_here, stage
from tests.engine.sources import garments

BLOCK = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "torch", "diffusers", "transformers"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Missing())
"""
BUSY = Doing(
    stage="generate",
    wanted=60,
    done=12,
    per_second=0.4,
    actors_wanted=3,
    actors_held=2,
    actors_busy=1,
)


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine that has diffii's command and no Ray."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCK)
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


def ask(environment: dict[str, str], *arguments: str | Path) -> str:
    done = subprocess.run(
        diffii("status", *arguments), env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@contextmanager
def at_work(storage: Storage, doing: Doing) -> Iterator[None]:
    """A driver that has said so."""
    with driving(storage, lambda text: pytest.fail(text), lambda: doing):
        while read_driver(storage) is None:
            time.sleep(0.01)
        yield


def finish(work: Run) -> None:
    run_waves(work, maker(work), packed_here, Silent(), None)


def test_there_is_no_ray(elsewhere: dict[str, str]) -> None:
    code = "import cluster.cli, engine.status, importlib, pytest\nwith pytest.raises(ImportError): import ray"
    subprocess.run([diffii()[0], "-c", code], env=elsewhere, check=True, timeout=300)


def test_a_run_is_told_through_all_its_states(tmp_path: Path, elsewhere: dict[str, str]) -> None:
    work = a_run(str(tmp_path / "out"))
    with at_work(work.storage, Doing(stage="learn", unit="steps", wanted=2000, done=500, per_second=2.5)):
        found = json.loads(ask(elsewhere, work.storage.url, "--json"))
        assert (found["state"], found["version"], found["seconds_left"]) == ("running", -1, 600.0)
        assert "learn 500 of 2000 steps, 2.5 steps/s, 10.0 min left" in ask(elsewhere, work.storage.url)
    begin(work)
    found = json.loads(ask(elsewhere, work.storage.url, "--json"))
    assert (found["state"], found["driver"], found["doing"], found["seconds_left"]) == ("incomplete", "", {}, None)
    with at_work(work.storage, BUSY):
        found = json.loads(ask(elsewhere, work.storage.url, "--json"))
        assert (found["state"], found["seconds_left"]) == ("running", 120.0)
        assert (found["doing"]["actors_wanted"], found["doing"]["actors_held"]) == (3, 2)
        shown = ask(elsewhere, work.storage.url)
        assert "generate 12 of 60 images, 0.4 images/s, 2.0 min left, 2 of 3 actors, 1 busy" in shown
    with at_work(work.storage, Doing(stage="generate", wanted=60, actors_wanted=3, waiting_seconds=240.0)):
        shown = ask(elsewhere, work.storage.url)
        assert ": waiting for capacity, 0 % of " in shown
        assert "generate 0 of 60 images, for 4.0 min without capacity, 0 of 3 actors, 0 busy" in shown
    finish(work)
    with at_work(work.storage, BUSY):
        found = json.loads(ask(elsewhere, work.storage.url, "--json"))
    assert (found["state"], found["driver"]) == ("complete", "")
    assert found["kept"] == work.history.kept


def test_what_waits_to_be_committed_is_counted_in_rows(tmp_path: Path) -> None:
    work = a_run(str(tmp_path / "out"), commit__chunk_size=4)
    begin(work)
    wave = work.open_wave()
    assert wave is not None
    rows, size, last = work.plan.row_count(wave), work.config.commit.chunk_size, work.plan.chunk_count(wave) - 1
    assert rows % size
    for chunk in (1, last):
        stage(work, wave, chunk)
    (tmp_path / "out" / layout.staged_wave(wave.wave) / f"{TEMPORARY}0").touch()
    assert status(work.storage.url).staged == size + rows % size


def test_classes_are_called_what_they_are_called(tmp_path: Path, elsewhere: dict[str, str]) -> None:
    """Brackets and colons are markup to what draws the table."""
    names = ("Acer [palmatum]", "a [/b]", ":bird:")
    work = a_run(str(tmp_path / "out"), names=names)
    begin(work)
    shown = ask(elsewhere, work.storage.url).splitlines()
    assert all(any(line.startswith(f"{name} ") for line in shown) for name in names)


def test_it_is_watched_until_it_is_complete(tmp_path: Path, elsewhere: dict[str, str]) -> None:
    work = a_run(str(tmp_path / "out"))
    begin(work)
    with at_work(work.storage, BUSY):
        watching = watch(elsewhere, work.storage.url)
        assert watching.stdout is not None
        assert "running, 0 % of " in watching.stdout.readline()
        finish(work)
        said, wrong = watching.communicate(timeout=300)
    assert (watching.returncode, wrong) == (0, "")
    assert f"complete, 100 % of {work.history.rows} rows decided" in said.splitlines()[-1]


def test_json_is_watched_line_by_line_and_left_quietly(tmp_path: Path, elsewhere: dict[str, str]) -> None:
    work = a_run(str(tmp_path / "out"))
    begin(work)
    watching = watch(elsewhere, work.storage.url, "--json")
    assert watching.stdout is not None
    for _ in range(2):
        assert json.loads(watching.stdout.readline())["state"] == "incomplete"
    watching.send_signal(signal.SIGINT)
    said, wrong = watching.communicate(timeout=300)
    assert (watching.returncode, said, wrong) == (0, "", "")


def watch(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        diffii("status", "--watch", *arguments),
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_run_without_machines_is_seen_to_wait(tmp_path: Path, elsewhere: dict[str, str]) -> None:
    """Actors want a GPU each, and this machine has none."""
    out = tmp_path / "out"
    command = diffii("expand", garments(tmp_path / "source", shots=2, classes=1), out, *SMALL, "--set=actors.gpus=1")
    with (tmp_path / "said").open("w") as said:
        driver = subprocess.Popen(command, stdout=said, stderr=said)
    found: dict[str, Any] = {}
    try:
        until = time.monotonic() + 300
        while found.get("state") != "waiting for capacity":
            assert driver.poll() is None and time.monotonic() < until, (tmp_path / "said").read_text()
            time.sleep(2.0)
            if (out / layout.HEARTBEAT).exists():
                found = json.loads(ask(elsewhere, out, "--json"))
        assert found["doing"]["waiting_seconds"] > 30
        assert (found["doing"]["actors_wanted"], found["doing"]["actors_held"]) == (1, 0)
    finally:
        driver.send_signal(signal.SIGINT)
        driver.wait(120)
    assert "waiting for capacity for " in (tmp_path / "said").read_text()
    assert json.loads(run("status", out, "--json").stdout)["state"] == "incomplete"
