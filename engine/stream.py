"""The one way work goes through Ray Data: a table with one task per row -> a pool of resident actors -> tiny rows.

Every option here answers something that was measured on Ray 2.60; the comments say what happens without it.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayActorError, RayError
from ray.util.annotations import RayDeprecationWarning

from actors.failures import task_retries
from diffii.errors import DiffiiError, ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Actors of one stage: how many, and what each takes."""

    min: int
    max: int
    gpus: float

    def at_most(self, tasks: int) -> Pool:
        """This pool, no larger than what `tasks` tasks keep busy."""
        top = max(1, min(self.max, tasks))
        return Pool(min=min(self.min, top), max=top, gpus=self.gpus)


RETRIES = task_retries(rows=64, micro_batch=16)
"""Of a chunk of the usual size; `expand` gives the number for the one configured."""


def stream(
    tasks: pa.Table, actor: type, spec: Any, pool: Pool, overlap: int = 2, retries: int = RETRIES
) -> Iterator[dict[str, Any]]:
    """Run `actor(spec)` over the tasks; yields what it returns, in any order.

    `overlap` calls run in an actor at once (loading and encoding beside the GPU); the actor's own lock keeps the GPU
    part serial. A task is given again up to `retries` times when its process dies (see `actors.failures`). Raises the
    DiffiiError an actor raised, ModelError when a task has used up its retries, else the Ray error.
    """
    _quiet_context()
    # One row per block: a small plan in one block would go to one actor, whatever the size of the pool.
    source = ray.data.from_arrow(tasks).repartition(target_num_rows_per_block=1)
    with warnings.catch_warnings():
        # `max_task_retries` has no named replacement; without it a task that kills its process is tried for ever.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        results = source.map_batches(
            actor,
            fn_constructor_args=(spec,),
            batch_size=1,
            batch_format="pyarrow",
            num_gpus=pool.gpus or None,
            # Explicitly 0 on a GPU: the default of 1 CPU starves the CPU tasks of a small node, for ever.
            num_cpus=0 if pool.gpus else 1,
            compute=ray.data.ActorPoolStrategy(
                min_size=pool.min,
                max_size=pool.max,
                # Starting at the maximum makes an autoscaling cluster grow at once instead of after half a minute.
                initial_size=pool.max,
                max_concurrent_calls_per_actor=overlap,
                enable_true_multi_threading=overlap > 1,
            ),
            max_task_retries=retries,
        )
    try:
        yield from results.iter_rows()
    except RayError as error:
        ours = _our_error(error)
        if ours is not None:
            raise ours from None
        if isinstance(error, RayActorError):
            # The journal blames rows for what happens in the model long before; this is what happens beside it.
            raise ModelError(
                f"an actor's process ended {retries + 1} times over one task, outside of the model's calls, so no row "
                "can be told apart: look at the host's memory and at the last lines of the actors' logs (ray logs), "
                "then run the same command again"
            ) from error
        raise


def _quiet_context() -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # 30 minutes by default: waiting for spot capacity would fail the run.
    context.execution_no_progress_timeout_s = -1
    # 0 by default: the first failed model load on a fresh node would fail the run.
    context.max_consecutive_actor_init_deaths = 8
    # What leaves an actor as an exception is a bug of ours; skipping its chunk would hide it.
    context.max_errored_blocks = 0
    if not os.environ.get("DIFFII_VERBOSE"):
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _our_error(error: BaseException) -> DiffiiError | None:
    """The DiffiiError inside what Ray raised, wherever Ray put it."""
    seen: list[BaseException | None] = [error]
    while seen:
        current = seen.pop()
        if isinstance(current, DiffiiError):
            return current
        if current is not None:
            seen += [current.__cause__, getattr(current, "cause", None)]
    return None
