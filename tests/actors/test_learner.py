"""The learner under a real Ray Train: one worker, two workers, and workers that die."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from actors import learner
from actors.learner import finished, learn
from actors.lesson_spec import LearnerSpec, concepts_folder
from actors.model import ModelSpec, load
from diffii.concepts.files import open_concepts
from diffii.concepts.lesson import Lesson
from diffii.concepts.loop import learn as learn_here
from diffii.concepts.record import Concepts
from diffii.concepts.settings import LearnSettings
from diffii.dataset.storage import Storage
from diffii.errors import ModelError, SourceError
from diffii.garments.catalog import COARSE_OF, TEMPLATE
from diffii.hashing import sha256
from diffii.images import decode, fit
from tests.engine.sources import garments

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_here")]

SETTINGS = LearnSettings(steps=6, batch=4, rank=2, warmup=0, check_every=2, check_rows=4, checkpoint_every=2)


def spec(folder: Path, settings: LearnSettings = SETTINGS, workers: int = 1) -> LearnerSpec:
    source = folder / "source"
    if not source.exists():
        garments(source, shots=2, classes=3)
    classes = tuple(sorted(path.name for path in source.iterdir()))
    files = sorted(source.glob("*/*.png"))
    return LearnerSpec(
        model=ModelSpec(model="garments", dtype="fp32", attention="sdpa", threads=1),
        weights="w",
        source_url=str(source),
        output_url=str(folder / "out"),
        images=tuple((path.relative_to(source).as_posix(), sha256(path.read_bytes())) for path in files),
        lesson=Lesson(
            classes=classes,
            words=tuple(COARSE_OF[name] for name in classes),
            labels=tuple(classes.index(path.parent.name) for path in files),
            template=TEMPLATE,
        ),
        settings=settings,
        workers=workers,
    )


def in_process(told: LearnerSpec, **changes: object) -> Concepts:
    backbone = load(told.model)
    images: list[np.ndarray] = [
        fit(decode((Path(told.source_url) / where).read_bytes()), backbone.image_size) for where, _ in told.images
    ]
    return learn_here(backbone, told.lesson, images, told.settings, **changes)  # pyright: ignore[reportArgumentType]


def test_one_worker_learns_what_is_learned_in_process_and_only_once(tmp_path: Path) -> None:
    told = spec(tmp_path)
    storage, interrupt = Storage(told.output_url), signal.getsignal(signal.SIGINT)
    assert finished(told, storage) is None
    concepts = learn(told)
    assert concepts.digest == in_process(told).digest
    assert open_concepts(f"{told.output_url}/{concepts_folder(concepts.digest)}").digest == concepts.digest
    assert concepts.about["steps"] == 6 and len(concepts.about["losses"]) == 3
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert learn(told).digest == concepts.digest
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    assert signal.getsignal(signal.SIGINT) is interrupt


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_learns_the_same_bytes(tmp_path: Path, workers: int) -> None:
    """Three have unequal shares of a step's parts, of which the last is a short one."""
    told = spec(tmp_path, LearnSettings(**{**SETTINGS.to_dict(), "batch": 7, "micro_batch": 2}), workers)
    assert told.settings.parts == 4
    found, alone = learn(told), in_process(told)
    assert found.digest == alone.digest
    assert found.about == {**alone.about, "model": found.about["model"]}


def test_a_worker_that_is_killed_is_replaced_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    settings = LearnSettings(**{**SETTINGS.to_dict(), "steps": 60, "checkpoint_every": 7, "check_every": 20})
    told = spec(tmp_path, settings)
    killed: list[int] = []

    def kill(step: int, steps: int, loss: float) -> None:
        assert steps == 60 and loss > 0
        if not killed and step >= 10:
            killed.extend(_workers())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    concepts = learn(told, watch=kill)
    assert len(killed) == 1
    assert concepts.digest == in_process(told).digest


def test_another_driver_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    told = spec(tmp_path)

    def die(step: int, loss: float) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_process(told, storage=Storage(told.output_url), folder=told.folder, watch=die)
    assert learn(told).digest == in_process(told).digest


@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_that_is_gone_is_named(tmp_path: Path, workers: int) -> None:
    told = spec(tmp_path, workers=workers)
    (Path(told.source_url) / told.images[3][0]).unlink()
    with pytest.raises(SourceError, match="no longer") as caught:
        learn(told)
    assert told.images[3][0] in str(caught.value)


def test_workers_that_keep_dying_are_one_error_that_says_of_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner, "MAX_FAILURES", 1)
    told = spec(tmp_path)
    broken = replace(told, images=told.images[1:])  # a bug of ours, which no other worker mends
    with pytest.raises(
        ModelError, match=r"^learning was given up after 1 deaths of its workers: .*5 latents for 6 images"
    ):
        learn(broken)


def _workers() -> list[int]:
    """The processes that Ray Train started for this test."""
    mine = psutil.Process().children(recursive=True)
    return [process.pid for process in mine if "RayTrainWorker" in " ".join(process.cmdline())]
