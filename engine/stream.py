"""The one way work goes through Ray Data: a table with one task per row -> a pool of resident actors -> tiny rows.

Every option here answers something that was measured on Ray 2.60; the comments say what happens without it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayActorError, RayError
from ray.util.annotations import RayDeprecationWarning

from actors.board import Watched
from actors.failures import task_retries
from diffii.errors import DiffiiError, ModelError
from engine.flat_memory import ForgetBlocks
from engine.lazy_rows import ChunkRows, Prepared
from engine.progress import Progress, Silent
from engine.watch import watching


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


_ADVICE = "\nFailed to apply UDF transform"
"""Begins what Ray Data appends to the text of every exception, about settings of its own that are of no use here."""


def stream(
    tasks: pa.Table,
    actor: type,
    spec: Any,
    pool: Pool,
    overlap: int = 2,
    retries: int = RETRIES,
    progress: Progress | None = None,
    prepare: ChunkRows | None = None,
) -> Iterator[dict[str, Any]]:
    """Run `actor(spec)` over the tasks; yields what it returns, in any order.

    `overlap` calls run in an actor at once (loading and encoding beside the GPU); the actor's own lock keeps the GPU
    part serial. With `prepare` it is given what that makes of a task in its own process. A task is given again up to
    `retries` times when its process dies (see `actors.failures`). With a Watched spec the stage is watched: `progress`
    hears what the actors do, and one that stands still is ended. Raises the DiffiiError an actor raised, ModelError
    when a task has used up its retries, else the Ray error.
    """
    _quiet_context()
    with contextlib.ExitStack() as watched:
        if isinstance(spec, Watched):
            spec = replace(spec, board=watched.enter_context(watching(pool.max, progress or Silent())))
        arguments = (spec,) if prepare is None else (actor, spec, prepare)
        if prepare is not None:
            # Processes, logs and Ray's own pages call it by this name.
            actor = type(actor.__name__, (Prepared,), {})
        yield from _results(_pipeline(tasks, actor, arguments, pool, overlap, retries), retries)


def _pipeline(
    tasks: pa.Table, actor: type, arguments: tuple[Any, ...], pool: Pool, overlap: int, retries: int
) -> ray.data.Dataset:
    # One row per block: a small plan in one block would go to one actor, whatever the size of the pool.
    source = ray.data.from_arrow(tasks).repartition(target_num_rows_per_block=1)
    with warnings.catch_warnings():
        # `max_task_retries` has no named replacement; without it a task that kills its process is tried for ever.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        return source.map_batches(
            actor,
            fn_constructor_args=arguments,
            batch_size=1,
            batch_format="pyarrow",
            num_gpus=pool.gpus or None,
            # Explicitly 0 on a GPU: the default of 1 CPU starves the CPU tasks of a small node, for ever.
            num_cpus=0 if pool.gpus else 1,
            compute=ray.data.ActorPoolStrategy(
                min_size=pool.min,
                max_size=pool.max,
                # Starting at the maximum makes an autoscaling cluster grow at once instead of after half a minute. From
                # then on Ray Data asks the autoscaler for what the backlog wants, in requests that end with the driver;
                # a `request_resources` of our own would be counted beside them, and outlive a driver that is killed.
                initial_size=pool.max,
                max_concurrent_calls_per_actor=overlap,
                enable_true_multi_threading=overlap > 1,
            ),
            max_task_retries=retries,
        )


def _results(pipeline: ray.data.Dataset, retries: int) -> Iterator[dict[str, Any]]:
    try:
        yield from pipeline.iter_rows()
    except RayError as error:
        ours = our_error(error)
        if ours is not None:
            raise ours from None
        if isinstance(error, RayActorError) and error.actor_init_failed:
            last = str(error).strip().splitlines()[-1].removeprefix("diffii.errors.")
            raise ModelError(f"an actor does not start, there is nothing it can do: {last}") from error
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
    # Ray Data wraps what an actor raises, and the pickled wrapper has lost what it was raised from.
    context.raise_original_map_exception = True
    if ForgetBlocks not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(ForgetBlocks)
    if not os.environ.get("DIFFII_VERBOSE"):
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def our_error(error: BaseException) -> DiffiiError | None:
    """The DiffiiError inside what Ray raised, as the actor raised it."""
    seen: list[BaseException | None] = [error]
    while seen:
        current = seen.pop()
        # Ray's own class of the error, made on the fly, is one of ours too, but holds a remote traceback for a text.
        if isinstance(current, DiffiiError) and not isinstance(current, RayError):
            return type(current)(str(current).partition(_ADVICE)[0])
        if current is not None:
            seen += [current.__cause__, getattr(current, "cause", None)]
    return None
