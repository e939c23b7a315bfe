"""What the driver keeps of a stream does not grow with the tasks that went through it."""

from __future__ import annotations

import gc

import pyarrow as pa
from ray.data.block import BlockStats

from engine.stream import Pool, stream


class Echo:
    def __init__(self, spec: None) -> None: ...

    def __call__(self, table: pa.Table) -> pa.Table:
        return table


def records() -> int:
    """Of blocks that were passed on; those of blocks on their way are of a class derived from it."""
    return sum(type(item) is BlockStats for item in gc.get_objects())


def test_ray_data_forgets_the_blocks_it_has_passed_on(ray_here: None) -> None:
    before, done, most = records(), 0, 0
    for _ in stream(pa.table({"task": list(range(150))}), Echo, None, Pool(min=1, max=1, gpus=0.0)):
        done += 1
        if done % 50 == 0:
            most = max(most, records() - before)
    assert done == 150
    assert most < 150, "two a task were kept"
