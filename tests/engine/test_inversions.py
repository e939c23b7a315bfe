"""The inversion stage: what it asks for, and what an image that harms its process costs: itself, nothing else."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from actors.inverter import Inverter
from diffii.dataset import layout, log
from engine import inversions
from engine.expand import expand
from engine.inversions import SignTask, missing_tasks, task_table
from engine.prepare import prepare
from engine.run import Run
from engine.settings import from_flat
from tests.actors.recorder import Recorder
from tests.engine.sources import PLAIN, garments

SETTINGS: dict[str, Any] = {
    **PLAIN,
    "inversion.steps": 2,
    "inversion.micro_batch": 4,
    "generation.steps": 2,
    "generation.micro_batch": 4,
    "commit.chunk_size": 8,
    "expansion.factor": 2,
    "expansion.max_attempts": 1,
    "engine.attempts": 2,
    "engine.stall_timeout": 5,
    "actors.max": 2,
}
RAISES, KILLS, EXITS, HANGS = 0, 2, 5, 7
"""Which images of the source do harm, by their place in it: of eight, in two batches."""
HARM = f"{layout.OWN}/harm"


def prepared(source: Path, out: Path, **more: Any) -> Run:
    settings = {**SETTINGS, **{key.replace("__", "."): value for key, value in more.items()}}
    return prepare(from_flat({**settings, "source.url": str(source), "output.url": str(out)}))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return garments(tmp_path_factory.mktemp("source"), shots=2)


class TestTasks:
    """The table of tasks: by what is missing of each image."""

    def test_without_dedup_nothing_is_signed(self, source: Path, tmp_path: Path) -> None:
        run = prepared(source, tmp_path / "out")
        tasks = missing_tasks(run)
        assert [task.key for task in tasks] == [item.key for item in run.plan.inversions()]
        assert {task.signature for task in tasks} == {""}
        assert [len(batch) for batch in task_table(tasks, 3).column("key").to_pylist()] == [3, 3, 2]

    def test_an_inversion_and_a_signature_are_missed_apart(self, source: Path, tmp_path: Path) -> None:
        run = prepared(source, tmp_path / "out", dedup__embedder="lite0")
        first, second, third, *rest = run.source.images
        run.storage.put_once(layout.inversion(run.plan.inversion_key(first)), b"")
        run.storage.put_once(layout.signature(run.plan.signature_key(second)), b"")
        run.storage.put_once(layout.inversion(run.plan.inversion_key(third)), b"")
        run.storage.put_once(layout.signature(run.plan.signature_key(third)), b"")
        tasks = {task.sha256: (bool(task.key), bool(task.signature)) for task in missing_tasks(run)}
        assert tasks == {
            first.sha256: (False, True),
            second.sha256: (True, False),
            **{image.sha256: (True, True) for image in rest},
        }

    def test_what_is_set_aside_is_not_missing(self, source: Path, tmp_path: Path) -> None:
        run = prepared(source, tmp_path / "out")
        first = run.plan.inversions()[0]
        run.storage.put_once(layout.set_aside(layout.inversion(first.key)), b"{}")
        assert first.key not in {task.key for task in missing_tasks(run)}

    def test_held_out_images_are_signed_only_and_once(self, source: Path, tmp_path: Path) -> None:
        run = prepared(source, tmp_path / "out", dedup__embedder="lite0")
        known = run.plan.signature_key(run.source.images[0])
        extra = [SignTask("s3://else", f"{k}.png", "00", key) for k, key in enumerate(("aa", "bb", "aa", known))]
        tasks = missing_tasks(run, extra)
        held_out = [task for task in tasks if task.url == "s3://else"]
        assert [(task.key, task.signature) for task in held_out] == [("", "aa"), ("", "bb")]
        assert tasks[-2:] == held_out
        table = task_table(tasks, 16)
        assert table.column("url").to_pylist() == [run.source.url, "s3://else"]


class Hazardous(Inverter):
    """The inverter, with a model that some images do harm to."""

    def _invert(self, images: Any, batch: list[int]) -> list[bytes]:
        harm = dict(line.split(maxsplit=1) for line in self._storage.read(HARM).decode().splitlines())
        present = {harm.get(images.task["sha256"][row]) for row in batch}
        if "kills" in present:
            os.kill(os.getpid(), signal.SIGKILL)
        if "exits" in present:
            os._exit(3)
        if "hangs" in present:
            time.sleep(3600)
        if "raises" in present:
            raise RuntimeError("a kernel asserts")
        return super()._invert(images, batch)


@pytest.mark.slow
def test_images_that_raise_kill_exit_and_hang_cost_only_themselves(
    source: Path, tmp_path: Path, ray_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = expand(prepared(source, tmp_path / "quiet"))
    monkeypatch.setattr(inversions, "Inverter", Hazardous)
    run = prepared(source, tmp_path / "out")
    bad = {RAISES: "raises", KILLS: "kills", EXITS: "exits", HANGS: "hangs"}
    images, wanted = run.source.images, run.plan.inversions()
    lines = [f"{images[number].sha256} {harm}" for number, harm in bad.items()]
    run.storage.put_once(HARM, "\n".join(lines).encode())
    progress = Recorder()
    run = expand(run, progress)

    for number, item in enumerate(wanted):
        name = layout.inversion(item.key)
        aside = run.storage.read_or_none(layout.set_aside(name))
        assert (run.storage.read_or_none(name) is None, aside is not None) == (number in bad, number in bad)
        if number not in bad:
            assert run.storage.read(name) == quiet.storage.read(name)
    said = {number: next(note for note in progress.notes if images[number].where in note) for number in bad}
    assert "cannot be inverted: RuntimeError: a kernel asserts" in said[RAISES]
    assert re.search("ended its process [23] times without a word", said[KILLS])
    assert re.search("ended its process [23] times without a word", said[EXITS])
    assert "the model did not answer for 5 s" in said[HANGS]
    assert run.storage.find(layout.ATTEMPTS) == []
    assert missing_tasks(run) == [], "a resume tries none of them again"
    assert any("ended (without a word) and" in note for note in progress.notes)

    spoiled = {images[number].sha256: images[number].where for number in bad}
    (wave,) = (entry for entry in run.waves if isinstance(entry, log.WaveEntry))
    reasons = {int(row): reason for entry in run.commits() for row, reason in entry.lost.get("poisoned", {}).items()}
    for place, row in enumerate(run.plan.rows(wave, 0, run.plan.row_count(wave))):
        parents = {row.parent_a, row.parent_b} & spoiled.keys()
        assert (place in reasons) == bool(parents)
        if parents:
            assert any(f"{spoiled[parent]} cannot be inverted: " in reasons[place] for parent in parents)
            assert reasons[place].startswith("its parent ")
