"""The log of what happens: every line is one object of the fields that are promised, and names the rows it is about."""

from __future__ import annotations

import io
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from diffii.dataset import log, staged
from diffii.errors import OutputError
from engine.events import EVENTS, Events, Told, written
from engine.progress import STARTING_SECONDS, Actors, Silent
from engine.run import begin
from engine.waves import run_waves
from tests.engine.imaginary_run import a_run, index, make_row, maker, packed_here

README = Path(__file__).parents[2] / "README.md"


def lines(text: str) -> list[dict[str, Any]]:
    """Each line, checked against what is promised."""
    found = [json.loads(line) for line in text.splitlines()]
    for line in found:
        assert tuple(line) == ("time", "run", "event", *EVENTS[line["event"]])
        assert datetime.fromisoformat(line["time"]).utcoffset() is not None
    return found


def test_lost_rows_are_named_with_their_chunk_and_reason(tmp_path: Path) -> None:
    run, file = a_run(str(tmp_path / "out")), io.StringIO()
    events = Events("diffii-out", file)
    begin(run)

    def follow(entry: log.CommitEntry) -> None:
        events.committed(run, entry)

    run_waves(run, maker(run, lambda chunks: chunks[::-1]), packed_here, Silent(), index(run), follow=follow)
    found = lines(file.getvalue())
    assert {line["run"] for line in found} == {"diffii-out"}
    planned = {
        row.sample_id: (wave.wave, chunk, make_row(row))
        for wave in run.waves
        for chunk in range(run.plan.chunk_count(wave))
        for row in run.plan.chunk(wave, chunk)
    }
    named: dict[tuple[str, str], int] = {}
    for line in found:
        for sample_id in line.get("sample_ids", ()):
            wave, chunk, made = planned.pop(sample_id)  # each once
            assert (line["wave"], line["chunk"]) == (wave, chunk)
            if made["outcome"] == staged.KEPT:
                assert (line["event"], line["reason"]) == ("rejected", "near-copy")
            else:
                assert (line["event"], line["reason"]) == (made["outcome"], made["reason"])
            key = (line["event"], line["reason"])
            named[key] = named.get(key, 0) + 1
    assert named == dict(run.history.lost)
    assert {reason for _, reason in named} == {"near-copy", "constant", "RuntimeError: as planned"}
    commits = [line for line in found if line["event"] == "commit"]
    assert sum(line["kept"] for line in commits) == run.history.kept == len(planned)
    assert commits[-1]["version"] == run.history.version
    assert [line["shard"] for line in commits if line["shard"]] == [shard.name for shard in run.history.shards]


def test_progress_is_told_when_it_is_news() -> None:
    file, notes = io.StringIO(), list[str]()

    class Heard(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    told = Told(Heard(), Events("run", file))
    told.stage("generate", 40, 8)
    for busy in (0, 1, 2):
        told.actors(Actors(wanted=3, here=2, ready=2, busy=busy))
    for seconds in (1.0, 2.0):
        told.actors(Actors(wanted=3, alone=STARTING_SECONDS + seconds))
    told.note('an image "x" is set aside\nfor good')
    stage, some, none, note = lines(file.getvalue())
    assert (stage["stage"], stage["wanted"], stage["done"], stage["unit"]) == ("generate", 40, 8, "images")
    assert (some["stage"], some["wanted"], some["here"], some["waiting_seconds"]) == ("generate", 3, 2, 0.0)
    assert (none["here"], none["waiting_seconds"]) == (0, STARTING_SECONDS + 1)
    assert [note["text"]] == notes


def test_the_last_line_says_how_it_ended(tmp_path: Path) -> None:
    to = tmp_path / "log.jsonl"
    with written("run", str(to)):
        pass
    for error in (OutputError("the disk is full"), KeyboardInterrupt(), ZeroDivisionError("ours")):
        with pytest.raises(type(error)), written("run", str(to)):
            raise error
    ends = [(line["how"], line["error"]) for line in lines(to.read_text())]
    assert ends == [
        ("done", ""),
        ("failed", "the disk is full"),
        ("stopped", ""),
        ("failed", "ZeroDivisionError: ours"),
    ]
    with pytest.raises(OutputError, match=r"--log-json: .*nowhere.* cannot be written"), written("run", "nowhere/x"):
        raise AssertionError("too late")


def test_the_readme_promises_the_same() -> None:
    rows = [line.split("|")[1:3] for line in README.read_text().splitlines() if line.startswith("| `")]
    said = {event.strip(" `"): tuple(name.strip(" `") for name in fields.split(",")) for event, fields in rows}
    assert {event: said.get(event) for event in EVENTS} == EVENTS
