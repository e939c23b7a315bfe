"""Before a new run is planned: find out how many rows a model call should have here, and keep to it from then on.

A row's last bits follow from the size of its call (law 5), so the size belongs to what the data set is: it goes into
the log's first entry, and every later start and every other card has to keep to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError

from actors.probe import Probed, ProbeSpec, probe
from diffii.batch_size import Measured, best
from diffii.dataset.history import read_log
from diffii.dataset.storage import Storage
from engine.micro_batches import GENERATION, INVERSION, changed, unset
from engine.progress import Progress
from engine.run import Run
from engine.specs import model_spec
from engine.stream import Pool, our_error
from engine.watch import watching

_TRIES = 4
"""The node may be taken away meanwhile."""


def settle_batches(run: Run, pool: Pool, progress: Progress, forks: Sequence[str] = ()) -> None:
    """Measure what nobody set; nothing to do for a run that is begun. A fork's are those of the first of `forks`.

    Raises ModelError.
    """
    open_keys = unset(run.config)
    if run.history.version >= 0 or not open_keys:
        return
    if forks:
        first = read_log(Storage(forks[0])).opening
        values = {key: first.identity[key] for key in open_keys} if first else {}
    elif run.config.engine.probe == "on" or (run.config.engine.probe == "auto" and pool.gpus):
        values = _measured(run, pool, progress, open_keys)
    else:
        return
    run.plan = changed(run.plan, values)
    run.config = run.plan.config


def _measured(run: Run, pool: Pool, progress: Progress, keys: Sequence[str]) -> dict[str, Any]:
    config = run.config
    progress.note("measuring how many images the model takes at once here, before the run is planned")
    spec = ProbeSpec(
        output_url=run.storage.url,
        stall_timeout=config.engine.stall_timeout,
        spot_notices=config.actors.spot_notices,
        model=model_spec(config, weights=run.plan.weights),
        guided=config.generation.guidance_scale != 1.0,
        largest=config.commit.chunk_size,
        share=min(1.0, pool.gpus) if pool.gpus else 1.0,
        generation=GENERATION in keys,
        inversion=INVERSION in keys and run.plan.arm.takes == "inversions",
    )
    # A process of its own, that ends: what it leaves on the card would be missing to the actors.
    task = ray.remote(num_gpus=pool.gpus, num_cpus=0 if pool.gpus else 1, max_retries=_TRIES, max_calls=1)(probe)
    progress.stage("measure", 1, 0, "devices")
    try:
        with watching(1, progress) as board:
            found: Probed = ray.get(task.remote(replace(spec, board=board)))
    except RayError as error:
        raise our_error(error) or error from None
    progress.advance(1)
    values: dict[str, Any] = {}
    for key, rows in ((GENERATION, found.generation), (INVERSION, found.inversion)):
        if rows is not None:
            values[key] = best(rows)
            progress.note(f"{key}={values[key]} on {found.device}: {_said(rows)}")
    return values


def _said(rows: Sequence[Measured]) -> str:
    rates = ", ".join(f"{one.rows}: {one.rate:.3g}/s" for one in rows)
    memory = f"; {rows[-1].memory / 2**30:.1f} GiB at {rows[-1].rows}" if rows[-1].memory else ""
    return rates + memory
