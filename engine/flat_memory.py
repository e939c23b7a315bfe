"""Keeps what Ray Data remembers of a stream from growing with it: a kilobyte per block it has passed on, for `stats()`.

A chunk is two blocks, so without this the driver of 1.5 million chunks would end with 3 GB of records nobody reads.
"""

from __future__ import annotations

from typing import Any

from ray.data._internal.execution.execution_callback import ExecutionCallback


class ForgetBlocks(ExecutionCallback):
    """Empties those records at each turn of the executor; a Ray without them is left alone."""

    def on_execution_step(self, executor: Any) -> None:
        for operator in executor._topology or ():
            records = getattr(operator, "_output_blocks_stats", None)
            if isinstance(records, list):
                records.clear()
