"""`diffii.follow`: every committed row once, while a writer writes, dies and is followed by another, over restarts."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import diffii
from diffii.dataset import layout, log
from diffii.dataset.history import read_log
from diffii.dataset.storage import Storage
from diffii.errors import OutputError
from engine.heartbeat import this_driver
from engine.next_wave import next_wave
from engine.prepare import load_run
from engine.progress import Silent
from engine.run import Run, begin
from engine.season import begin_season
from engine.stream import Pool
from engine.waves import run_waves
from tests.diffii import follower_process
from tests.engine.imaginary_run import a_run, packed_here, stage

pytest_plugins = ["tests.s3"]

MANY: dict[str, Any] = {"expansion__factor": 20.0}


class Died(Exception):
    """The writer is gone."""


def write(url: str, chunks: int = 10**6, each: Callable[[], None] = lambda: None, **settings: Any) -> None:
    """Go on with the data set at `url` until it is complete, or until so many chunks are made. Raises Died."""
    run = a_run(url, **settings)
    left = iter(range(chunks))

    def make(wave: log.WaveEntry, todo: list[int]) -> Iterator[dict[str, Any]]:
        for chunk in todo:
            each()
            if next(left, None) is None:
                raise Died
            yield stage(run, wave, chunk)

    begin(run)
    run_waves(run, make, packed_here, Silent(), None)
    if run.grown is not None:
        begin_season(run, Pool(min=1, max=1, gpus=0.0), Silent())
        begin(run)
        run_waves(run, make, packed_here, Silent(), None)


def names(url: str) -> list[str]:
    return diffii.open(url).column("sample_id").to_pylist()


def followed(url: str, state: dict[str, Any] | None = None, **options: Any) -> list[str]:
    follower = diffii.follow(url, **options)
    if state is not None:
        follower.load_state_dict(state)
    return [row["sample_id"] for row in follower]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = str(tmp_path_factory.mktemp("set"))
    write(url, **MANY)
    return url


def test_rows_of_a_complete_data_set_in_commit_order(url: str) -> None:
    follower = diffii.follow(url)
    assert (follower.version, follower.complete) == (-1, False)
    rows = list(follower)
    assert rows == [diffii.open(url).row(number) for number in range(len(rows))] and len(rows) > 80
    assert (follower.version, follower.complete) == (diffii.open(url).version, True)
    assert list(follower) == []


def test_after_a_version_come_the_rows_of_later_ones(url: str) -> None:
    rows = names(url)
    for version in range(diffii.open(url).version + 1):
        assert followed(url, from_version=version) == rows[len(diffii.open(url, version)) :]


def test_restarted_at_any_place_it_goes_on_there(url: str) -> None:
    rows, follower = names(url), diffii.follow(url)
    for place, row in enumerate(follower, start=1):
        state = json.loads(json.dumps(follower.state_dict()))
        assert row["sample_id"] == rows[place - 1]
        if place % 7 < 2:
            assert followed(url, state) == rows[place:]


def test_batches_are_snapshots_of_what_is_new(tmp_path: Path) -> None:
    seen: list[str] = []
    state = None
    for chunks in (4, 3, 5, 10**6):
        with contextlib.suppress(Died):
            write(str(tmp_path), chunks)
        follower = diffii.follow(str(tmp_path), timeout=0)
        if state is not None:
            follower.load_state_dict(state)
        for snapshot in follower.batches():
            seen += snapshot.column("sample_id").to_pylist()
            assert snapshot.row(0)["sample_id"] == seen[-len(snapshot)]
            assert follower.version == snapshot.version
        state = follower.state_dict()
        assert seen == names(str(tmp_path))
    assert follower.complete


def by_the_plan(run: Run) -> bool:
    """Whether no wave is open, and none is to come of what the last one was to reach."""
    if not run.waves or run.open_wave() is not None:
        return False
    last = run.waves[-1]
    return next_wave(run.plan, run.waves, run.kept(), last.targets, last.limits) is None


@pytest.mark.parametrize("attempts", [3.0, 1.1])
def test_complete_is_told_from_the_log_alone_as_the_plan_tells_it(tmp_path: Path, attempts: float) -> None:
    url = str(tmp_path)
    write(url, expansion__factor=2.0, expansion__max_attempts=attempts)
    write(url, expansion__factor=5.0, expansion__max_attempts=attempts)
    storage, run, told = Storage(url), load_run(url), []
    for version in range(run.history.version + 1):
        run.history = read_log(storage, version)
        assert run.history.complete == by_the_plan(run)
        told.append(run.history.complete)
    assert told[-1] and 2 <= told.count(True) < len(told), "after each of the two, and not between"
    assert len(run.waves) > 2, "some waves refilled what was lost"
    assert (run.history.kept < sum(run.waves[-1].targets)) == (attempts < 2), "as far as attempts go"


def test_a_source_that_grows_is_followed_on(tmp_path: Path) -> None:
    url, grown = str(tmp_path), {"sizes": (3, 3, 3, 2), "names": ("class 0", "class 1", "class 2", "a new one")}
    write(url)
    follower = diffii.follow(url)
    seen, known = list(follower), follower.version
    write(url, **grown)
    assert len(read_log(Storage(url), known + 1).growths) == 1
    told = [read_log(Storage(url), version).complete for version in range(known, diffii.open(url).version + 1)]
    assert told == [True, *[False] * (len(told) - 2), True], "a wave follows the growth"
    seen += follower
    assert [row["sample_id"] for row in seen] == names(url) and follower.complete
    assert {row["class_name"] for row in seen} == set(diffii.open(url).classes) == set(grown["names"])


def test_while_a_writer_writes_and_then_grows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader is there first. It looks whenever it can."""
    url = str(tmp_path / "later")
    monkeypatch.setattr(time, "sleep", lambda seconds, sleep=time.sleep: sleep(min(seconds, 0.002)))
    state: dict[str, Any] = diffii.follow(url).state_dict()
    for factor in (3.0, 8.0):
        writer = threading.Thread(target=write, args=(url,), kwargs={"expansion__factor": factor})
        writer.start()
        before = state["rows"]
        if factor > 3.0:
            # The data set is complete until the writer has asked for more.
            while diffii.open(url).version == state["version"]:
                pass
        follower = diffii.follow(url, timeout=60)
        follower.load_state_dict(state)
        seen = [row["sample_id"] for row in follower]
        state = follower.state_dict()
        writer.join()
        assert follower.complete and len(seen) > 10 and seen == names(url)[before:]


def test_a_writer_that_died_is_waited_for_or_not_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(tmp_path)
    with pytest.raises(Died):
        write(url, 5)
    there = names(url)
    assert len(there) > 0
    began = time.monotonic()
    assert followed(url, timeout=0) == followed(url, until="stopped") == there
    assert followed(url, timeout=0.3, poll=0.01) == there
    assert 0.3 <= time.monotonic() - began < 20

    storage, driver = Storage(url), replace(this_driver(), machine="another", pid=1)
    monkeypatch.setattr("diffii.dataset.driver.SILENT_SECONDS", 1.0)
    stop = threading.Event()

    def beat() -> None:
        for number in range(10**6):
            storage.put(layout.HEARTBEAT, json.dumps(asdict(replace(driver, beat=number))).encode())
            if stop.wait(0.05):
                return

    def resurrect() -> None:
        time.sleep(2.5)  # longer than a silent writer is waited for
        write(url)
        stop.set()

    storage.put(layout.HEARTBEAT, json.dumps(asdict(driver)).encode())
    threads = [threading.Thread(target=beat), threading.Thread(target=resurrect)]
    for thread in threads:
        thread.start()
    follower = diffii.follow(url, until="stopped", poll=0.05)
    seen = [row["sample_id"] for row in follower]
    for thread in threads:
        thread.join()
    assert follower.complete and seen == names(url) and len(seen) > len(there)

    follower = diffii.follow(url, until="forever", timeout=20, poll=0.05)
    rows = iter(follower)
    assert [next(rows)["sample_id"] for _ in seen] == seen and follower.complete
    growing = threading.Timer(0.5, write, (url,), {"expansion__factor": 4.0})
    growing.start()
    seen.append(next(rows)["sample_id"])
    growing.join()
    while not follower.complete:
        seen.append(next(rows)["sample_id"])
    assert seen == names(url)
    assert followed(url, until="stopped", from_version=0) == seen
    unfinished = str(tmp_path / "unfinished")
    with pytest.raises(Died):
        write(unfinished, 5)
    Storage(unfinished).put(layout.HEARTBEAT, json.dumps(asdict(driver)).encode())
    follower = diffii.follow(unfinished, until="stopped", poll=0.05)
    assert len(list(follower)) == len(there) and not follower.complete, "its heartbeat stands still"


def test_looks_become_rare_and_cost_two_listings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Died):
        write(str(tmp_path), 5)
    pauses: list[float] = []
    calls: list[str] = []
    follower = diffii.follow(str(tmp_path), until="forever")
    storage = follower._storage

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 8:
            raise KeyboardInterrupt

    rows = iter(follower)
    for _ in names(str(tmp_path)):
        next(rows)
    monkeypatch.setattr(time, "sleep", sleep)
    for method in ("names", "read", "read_or_none", "open"):
        original = getattr(storage, method)
        monkeypatch.setattr(storage, method, lambda name, m=method, o=original: calls.append(m) or o(name))
    with pytest.raises(KeyboardInterrupt):
        next(rows)
    for pause, expected in zip(pauses, [1, 2, 4, 8, 16, 30, 30, 30], strict=True):
        assert 0.8 * expected <= pause <= expected
    assert calls == ["names", "names"] * 8


def test_a_long_log_is_caught_up_with_by_its_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(tmp_path)
    write(url, expansion__factor=3.0)
    follower = diffii.follow(url)
    before = [row["sample_id"] for row in follower]
    write(url, **MANY)
    monkeypatch.setattr("diffii.dataset.layout.LOG_PAGE", 4)
    monkeypatch.setattr("diffii.dataset.follow.read_entries", None)
    assert before + [row["sample_id"] for row in follower] == names(url)


@pytest.mark.parametrize("damage", ["missing", "garbage", "shorter", "other"])
def test_a_damaged_log_is_named(tmp_path: Path, damage: str) -> None:
    url, storage = str(tmp_path / "set"), Storage(str(tmp_path / "set"))
    write(url)
    follower = diffii.follow(url)
    rows = iter(follower)
    for _ in range(8):
        next(rows)
    state = follower.state_dict()
    newest = diffii.open(url).version
    if damage == "missing":
        storage.remove(layout.log_entry(4))
        with pytest.raises(OutputError, match="log entry 4 is missing"):
            followed(url)
    elif damage == "garbage":
        storage.put(layout.log_entry(4), b"{}")
        with pytest.raises(OutputError, match=r"000000000004\.json is not a log entry"):
            followed(url)
    elif damage == "shorter":
        storage.remove(layout.log_entry(newest))
        with pytest.raises(OutputError, match=f"log entry {newest} was there and is gone"):
            list(follower)
    else:
        other = str(tmp_path / "other")
        write(other, expansion__seed=1)
        follower = diffii.follow(other)
        with pytest.raises(OutputError, match="is not the data set that this state is of"):
            follower.load_state_dict(state)


def test_what_cannot_be_followed(url: str) -> None:
    with pytest.raises(OutputError, match="has no version 1000"):
        diffii.follow(url, from_version=1000)
    with pytest.raises(ValueError, match="until is 'complete'"):
        diffii.follow(url, until="always")  # type: ignore[arg-type]


def test_a_bucket_is_followed(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffii.dataset.follow._FIRST_PAUSE", 0.02)
    writer = threading.Thread(target=write, args=(s3_url,))
    writer.start()
    seen: list[str] = []
    state = diffii.follow(s3_url).state_dict()
    while True:
        follower = diffii.follow(s3_url, poll=0.05)
        follower.load_state_dict(state)
        for _, row in zip(range(5), follower, strict=False):
            seen.append(row["sample_id"])
        state = follower.state_dict()
        if follower.complete:
            break
    writer.join()
    assert seen == names(s3_url) and len(seen) > 10


def test_under_chaos_no_row_is_lost_and_none_comes_twice(tmp_path: Path) -> None:
    """A reader in a process of its own is killed again and again while writers die and follow one another."""
    url, kept, draw = str(tmp_path / "set"), tmp_path / "kept.jsonl", random.Random(0)
    kept.touch()
    kills, wanted = 0, 6

    def written() -> int:
        return kept.read_bytes().count(b"\n")

    def hold_back() -> None:
        """The reader is never far behind, so that it dies at rows that are just being committed."""
        while len(diffii.open(url)) > written() + 25 and kills < wanted:
            time.sleep(0.05)

    def writers() -> None:
        while True:
            try:
                return write(url, draw.randrange(3, 30), hold_back, expansion__factor=60.0)
            except Died:
                pass

    writing = threading.Thread(target=writers)
    writing.start()
    while True:
        reader = subprocess.Popen([sys.executable, "-m", follower_process.__name__, url, str(kept)])
        if kills == wanted:
            assert reader.wait(240) == 0
            break
        goal = written() + draw.randrange(1, 40)
        while written() < goal and reader.poll() is None:
            time.sleep(0.001)
        assert reader.poll() is None, "killed in the midst of it"
        reader.kill()
        assert reader.wait() == -9
        kills += 1
    writing.join()
    seen = [json.loads(line)["row"] for line in kept.read_text().splitlines()]
    assert seen == names(url) and len(seen) > 150
