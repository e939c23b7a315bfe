"""A data set made in this process, by the real actors' classes in the order of the plan: Ray is not under test here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from actors.generator import Generator
from actors.inverter import Inverter
from diffii.dataset.log import WaveEntry
from engine.config import Config
from engine.expand import index_of
from engine.inversions import missing_tasks, task_table
from engine.prepare import prepare
from engine.progress import Silent
from engine.publish import publish
from engine.run import Run, begin
from engine.specs import generator_spec, inverter_spec
from engine.waves import run_waves
from tests.engine.imaginary_run import packed_here


def expand_here(config: Config) -> Run:
    """As `engine.expand` does for a run without captions and concepts that nothing interrupts."""
    run, threads = prepare(config), torch.get_num_threads()
    begin(run)
    if images := missing_tasks(run):
        Inverter(inverter_spec(run))(task_table(images, config.inversion.micro_batch))
    generator = Generator(generator_spec(run))

    def make(wave: WaveEntry, chunks: list[int]) -> Iterator[dict[str, Any]]:
        for chunk in chunks:
            yield from generator(run.plan.table(wave, [chunk])).to_pylist()

    run_waves(run, make, packed_here, Silent(), index_of(run))
    publish(run)
    torch.set_num_threads(threads)
    return run
