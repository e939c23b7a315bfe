"""A planned run whose images are inverted, and a generator over it: fixtures for tests of generators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from actors.generator import Generator
from actors.inverter import Inverter, InverterSpec
from diffii.dataset import layout, staged
from diffii.dataset.log import WaveEntry
from engine.inversions import missing_tasks, task_table
from engine.next_wave import first_wave
from engine.plan import Plan
from engine.prepare import prepare
from engine.run import Run
from engine.settings import from_flat
from engine.specs import generator_spec, model_spec
from tests.engine.sources import PLAIN, garments

SETTINGS = {
    **PLAIN,
    "inversion.steps": 3,
    "inversion.micro_batch": 4,
    "generation.steps": 3,
    "generation.micro_batch": 4,
    "commit.chunk_size": 6,
    "expansion.factor": 3,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, WaveEntry]]:
    """A planned run of four classes whose images are inverted."""
    threads = torch.get_num_threads()
    base = tmp_path_factory.mktemp("run")
    source = garments(base / "source", shots=2)
    for file in sorted((source / "Bag").iterdir())[1:]:
        file.unlink()  # a class of one image
    prepared = prepare(from_flat({**SETTINGS, "source.url": str(source), "output.url": str(base / "out")}))
    wave = first_wave(prepared.plan)
    assert wave is not None
    invert(prepared)
    yield prepared, wave
    torch.set_num_threads(threads)


def inverter(run: Run) -> Inverter:
    spec = InverterSpec(
        model=model_spec(run.config),
        output_url=run.storage.url,
        steps=3,
        spacing="matched",
        micro_batch=4,
    )
    return Inverter(spec)


def invert(run: Run) -> None:
    images = missing_tasks(run)
    (told,) = inverter(run)(task_table(images, 100)).to_pylist()
    calls = -(-len(images) // 4) * 3  # of three steps, none of them diffused
    assert told == {"images": len(images), "set_aside": [], "unet_rows": 4 * calls}


def generate(generator: Generator, plan: Plan, wave: WaveEntry, chunk: int = 0) -> list[dict[str, Any]]:
    generator(plan.table(wave, [chunk]))
    return read(generator, chunk)


def read(generator: Generator, chunk: int = 0) -> list[dict[str, Any]]:
    storage = generator._storage
    return staged.read_rows(storage, layout.staged_chunk(0, chunk)).to_pylist()


@pytest.fixture
def generator(run: tuple[Run, WaveEntry], tmp_path: Path) -> Generator:
    """A generator that reads the run's inversions and stages into a folder of its own."""
    (tmp_path / layout.OWN).mkdir()
    (tmp_path / layout.INVERSIONS).symlink_to(Path(run[0].storage.root) / layout.INVERSIONS)
    return Generator(replace(generator_spec(run[0]), output_url=str(tmp_path)))


def vars_of(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}
