"""The example that trains while a data set is written: both are killed, the source grows, and it ends with all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import diffii
from diffii.examples.continual import EPOCHS, STATE, network, widen
from tests.cluster.commands import SMALL, kill_when, run
from tests.cluster.commands import diffii as command
from tests.engine.sources import garments


def test_known_classes_keep_their_rows_when_the_network_widens() -> None:
    model, images = network(2).eval(), torch.rand(4, 3, 32, 32)
    before = model(images)
    widen(model, 3)
    assert model(images).shape == (4, 3)
    torch.testing.assert_close(model(images)[:, :2], before)


@pytest.mark.slow
def test_it_learns_from_a_growing_data_set_through_deaths_of_both(tmp_path: Path) -> None:
    pool, source = garments(tmp_path / "pool", shots=4, classes=3), tmp_path / "source"
    names = sorted(path.name for path in pool.iterdir())
    for name in names[:2]:
        shutil.copytree(pool / name, source / name)
    out, folder = tmp_path / "out", tmp_path / "classifier"
    expand = command("expand", source, out, *SMALL, "--set=expansion.factor=10")
    first = trainer(out, folder)
    try:
        kill_when(expand, lambda: _state(folder).get("reading") is not None)
    finally:
        _kill(first)
    died = _state(folder)
    shutil.copytree(pool / names[2], source / names[2])
    second = trainer(out, folder)
    try:
        run("expand", source, out, *SMALL, "--set=expansion.factor=10")
        newest = diffii.open(str(out))
        assert newest.classes == tuple(names) and len(newest) == 120
        _wait(lambda: any(line["version"] == newest.version for line in _lines(folder)))
    finally:
        _kill(second)
    epoch = _state(folder)["epoch"] + 1
    assert trainer(out, folder, epoch).wait(300) == 0
    lines = _lines(folder)
    assert [line["epoch"] for line in lines[-1:]] == [epoch]
    assert sorted({line["epoch"] for line in lines}) == list(range(1, epoch + 1)), "no epoch is skipped"
    assert [line["version"] for line in lines] == sorted(line["version"] for line in lines)
    assert lines[0]["classes"] == 2 and lines[-1]["classes"] == 3 and len({line["version"] for line in lines}) > 2
    for line in lines:
        assert line["rows"] == len(diffii.open(str(out), line["version"]))
    after = next(line for line in lines if line["epoch"] == died["epoch"] + 1)
    assert after["version"] == died["version"], "the epoch under way is ended with the rows that it was begun with"


def trainer(out: Path, folder: Path, epochs: int = 100_000) -> subprocess.Popen[bytes]:
    options = [f"--epochs={epochs}", "--batch=4", "--every=1"]
    return subprocess.Popen([sys.executable, "-m", "diffii.examples.continual", out, folder, *options])


def _state(folder: Path) -> dict[str, Any]:
    return torch.load(folder / STATE, weights_only=True) if (folder / STATE).exists() else {}


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / EPOCHS).read_text().splitlines()]


def _wait(sign: Callable[[], bool]) -> None:
    until = time.monotonic() + 300
    while not sign():
        assert time.monotonic() < until
        time.sleep(0.2)


def _kill(process: subprocess.Popen[bytes]) -> None:
    assert process.poll() is None, "it was still at work"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
