"""The watch over actors: what stands still is ended, what waits is not, and what is missing is shown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray

from actors.board import COMPUTING, ENCODING, READING, WAITING, Board, Holding, Post
from actors.captioner import CaptionerActor
from actors.desk import Hold
from actors.failures import HANGS
from actors.generator import Generator
from diffii.contexts.files import ImageContext
from diffii.dataset import layout
from diffii.errors import OutputError
from engine import caption_stage, watch
from engine import expand as expansion
from engine.prepare import prepare
from engine.progress import STARTING_SECONDS, Actors, Silent
from engine.run import Run
from engine.settings import from_flat
from engine.stream import Pool
from engine.verify import verify
from engine.watch import Clocks, Still
from tests.actors.recorder import Recorder
from tests.engine.sources import PLAIN, garments

LIMIT, MARGIN = 100.0, 10.0
ONE = Post(actor="a", process="p", node="n", pid=1, born=0.0, limit=LIMIT, ready=True)


def post(number: int, *holdings: tuple[str, str, int], process: str = "p") -> Post:
    return replace(ONE, process=process, number=number, holdings=tuple(Holding(*holding) for holding in holdings))


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize("state", ["stopped", "ended", "on a node that went"])
def test_only_a_process_that_is_still_there_has_hung(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    """A last post stays, for hours where the cloud has no other machine; three hangs over a chunk stop a run."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    node = "0" * 56 if state == "on a node that went" else ray.get_runtime_context().get_node_id()
    monkeypatch.setattr(watch, "gone_nodes", lambda: {"0" * 56})
    last = replace(ONE, node=node, pid=process.pid, born=psutil.Process(process.pid).create_time())
    if state == "ended":
        process.kill()
        process.wait()
    watching = watch.Watch(1, Silent())
    try:
        killed = watching._end(Still(last, 1000.0, {"chunk 0": COMPUTING}, silent=True))
        answer: Any = ray.get(watching.board.ask.remote("chunk 0"))
        assert killed == (state == "stopped")
        assert answer.hangs == ((COMPUTING,) if killed else ())
        assert answer.excused == {last.process}, "it is ended, whichever it was"
        assert not killed or process.wait(60) == -signal.SIGKILL
    finally:
        ray.kill(watching.board)
        process.kill()


class TestClocks:
    """Pure: posts and seconds in, processes to be ended out."""

    def test_who_gets_on_is_left_alone(self) -> None:
        clocks = Clocks(MARGIN)
        for number in range(50):
            assert clocks.round([post(number, ("chunk 0", COMPUTING, number))], 10.0) == []

    def test_a_silent_process_is_ended_and_all_it_holds_is_counted(self) -> None:
        clocks = Clocks(MARGIN)
        frozen = post(7, ("chunk 0", COMPUTING, 3), ("chunk 1", WAITING, 1))
        rounds = [clocks.round([frozen], 10.0) for _ in range(13)]
        assert [len(stills) for stills in rounds] == [0] * 12 + [1]
        (still,) = rounds[-1]
        assert (still.silent, still.hung) == (True, {"chunk 0": COMPUTING, "chunk 1": WAITING})
        assert still.reason == "it gave no sign of life for 120 s"

    def test_a_task_that_stands_still_beside_one_that_gets_on(self) -> None:
        clocks = Clocks(MARGIN)
        stills = []
        for number in range(13):
            stills = clocks.round([post(number, ("chunk 0", COMPUTING, number), ("chunk 1", READING, 4))], 10.0)
        (still,) = stills
        assert (still.silent, still.hung) == (False, {"chunk 1": READING})
        assert still.reason == "it stood still for 120 s while reading"

    def test_waiting_for_the_model_has_no_clock(self) -> None:
        clocks = Clocks(MARGIN)
        for number in range(50):
            assert clocks.round([post(number, ("chunk 0", COMPUTING, number), ("chunk 1", WAITING, 4))], 10.0) == []

    def test_holding_nothing_is_not_standing_still(self) -> None:
        clocks = Clocks(MARGIN)
        for number in range(50):
            assert clocks.round([post(number)], 10.0) == []

    def test_another_step_starts_the_clock_anew(self) -> None:
        clocks = Clocks(MARGIN)
        for number in range(22):
            phase = READING if number < 11 else ENCODING
            assert clocks.round([post(number, ("chunk 0", phase, 4))], 10.0) == []

    def test_a_process_that_follows_another_is_news_once(self) -> None:
        clocks = Clocks(MARGIN)
        clocks.round([post(1)], 1.0)
        clocks.round([post(1, process="q")], 1.0)
        assert [ended.process for ended in clocks.ended] == ["p"]
        clocks.round([post(2, process="q")], 1.0)
        assert clocks.ended == []


def test_the_board_counts_hangs_and_forgets_the_ended() -> None:
    board = Board()
    board.post(ONE)
    assert board.posts() == [ONE]
    board.end(ONE, {"chunk 0": READING})
    board.post(ONE)
    assert board.posts() == [], "a process that is being ended is not heard any more"
    answer = board.ask("chunk 0")
    assert (answer.hangs, answer.excused) == ((READING,), frozenset({"p"}))
    assert board.ask("chunk 1").hangs == ()


@pytest.mark.parametrize(
    ("actors", "said"),
    [
        (Actors(wanted=4), "starting actors"),
        (Actors(wanted=4, alone=STARTING_SECONDS + 570), "waiting for capacity for 10 min (0 of 4 actors)"),
        (Actors(wanted=4, here=2), "loading the model in 2 of 4 actors"),
        (Actors(wanted=4, here=4, ready=3, busy=3), "3 of 4 actors busy"),
    ],
)
def test_what_is_said_of_the_actors(actors: Actors, said: str) -> None:
    assert str(actors) == said


# -- in a real Ray ----------------------------------------------------------------------------------------------------

SETTINGS: dict[str, Any] = {
    **PLAIN,
    "inversion.steps": 2,
    "inversion.micro_batch": 4,
    "generation.steps": 2,
    "generation.micro_batch": 4,
    "commit.chunk_size": 4,
    "expansion.factor": 3,
    "engine.stall_timeout": 8,
    "actors.max": 2,
}
FROZEN, HUNG = f"{layout.OWN}/frozen", f"{layout.OWN}/hung"


class Freezing(Generator):
    """Its first process to reach the model is stopped there; a later one hangs in storage, once."""

    def _model(self, rows: list[dict[str, Any]], starts: list[Any], batch: list[int]) -> np.ndarray:
        if self._storage.put_once(FROZEN, b""):
            os.kill(os.getpid(), signal.SIGSTOP)
        return super()._model(rows, starts, batch)

    def _start(self, row: dict[str, Any]) -> Any:
        if self._storage.read_or_none(FROZEN) is not None and self._storage.put_once(HUNG, b""):
            time.sleep(3600)
        return super()._start(row)


class Unreachable(Generator):
    """A storage that never answers."""

    def _start(self, row: dict[str, Any]) -> Any:
        time.sleep(3600)


class HangingCaptioner(CaptionerActor):
    """Its first process never comes back from the model."""

    def _of(self, task: dict[str, Any], hold: Hold) -> list[ImageContext]:
        if self._storage.put_once(HUNG, b""):
            hold.at(COMPUTING)
            time.sleep(3600)
        return super()._of(task, hold)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return garments(tmp_path_factory.mktemp("source"), shots=2)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MARGIN", 4.0)


def expanded(source: Path, out: Path, progress: Recorder) -> Run:
    return expansion.expand(from_flat({**SETTINGS, "source.url": str(source), "output.url": str(out)}), progress)


@pytest.mark.slow
def test_a_frozen_actor_and_one_hung_in_storage_are_replaced(
    source: Path, tmp_path: Path, ray_here: None, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expanded(source, tmp_path / "quiet", Recorder())
    monkeypatch.setattr(expansion, "Generator", Freezing)
    progress = Recorder()
    run = expanded(source, tmp_path / "out", progress)
    assert run.complete
    quiet, found = verify(str(tmp_path / "quiet")), verify(str(tmp_path / "out"))
    assert (found.problems, found.poisoned) == ([], 0)
    assert (found.digest, found.shards_digest) == (quiet.digest, quiet.shards_digest)
    assert any("it gave no sign of life" in note for note in progress.notes)
    assert any("while reading" in note for note in progress.notes)
    assert any(state.busy for state in progress.states)


@pytest.mark.slow
def test_a_task_that_hangs_everywhere_outside_of_the_model_stops_the_run(
    source: Path, tmp_path: Path, ray_here: None, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expansion, "Generator", Unreachable)
    said = rf"{HANGS} actors hung over chunk \d of wave 0.*storage does not answer.* run the same command again$"
    with pytest.raises(OutputError, match=said):
        expanded(source, tmp_path / "out", Recorder())


@pytest.mark.slow
def test_a_captioner_that_hangs_is_replaced(
    source: Path, tmp_path: Path, ray_here: None, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caption_stage, "CaptionerActor", HangingCaptioner)
    settings = {"source.url": str(source), "output.url": str(tmp_path / "out"), "engine.stall_timeout": 8}
    run, progress = prepare(from_flat(settings)), Recorder()
    contexts = caption_stage.caption_images(run, Pool(min=1, max=1, gpus=0), progress)
    assert [context.sha256 for context in contexts] == [image.sha256 for image in run.source.images]
    assert all(context.context for context in contexts)
    assert sum("while computing" in note for note in progress.notes) == 1
    assert any(state.busy for state in progress.states)


@pytest.mark.cluster
def test_waiting_for_capacity_is_shown_and_ends_with_it(tmp_path: Path) -> None:
    script = [sys.executable, "-m", "tests.engine.capacity", str(tmp_path)]
    # Without the token of a Ray that other tests run in this process: the script's cluster has none.
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run(script, capture_output=True, text=True, timeout=400, check=False, env=clean)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    joined = lines.index("a node joins")
    made = {"stream": "[0, 1, 2]", "measure": "[1, 1]", "learn": "6"}
    for stage, result in made.items():
        assert any(line.startswith(f"{stage}: waiting for capacity for") for line in lines[:joined])
        assert not any(line.startswith(f"{stage}: 1 of 1 actors busy") for line in lines[:joined])
        assert f"{stage}: made {result}" in lines[joined:]
