"""The inversion stage: every image of the source inverted and signed once, cached by content for later runs.

Held-out images, of another source, are only signed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa

from actors.failures import MAX_KILLERS, task_retries
from actors.inverter import Inverter, batch_name
from actors.set_aside import read_set_aside
from diffii.dataset import layout
from engine.counters import INVERT, Counters
from engine.progress import Progress
from engine.run import Run
from engine.specs import inverter_spec
from engine.stream import Pool, stream

LISTS = ("key", "signature", "where", "sha256", "prompt")
INVERSION_SCHEMA = pa.schema([("url", pa.string())] + [(name, pa.list_(pa.string())) for name in LISTS])
"""One row per task: images of one source. An empty key asks for no inversion, an empty signature for none."""


@dataclass(frozen=True, slots=True)
class SignTask:
    """An image to be signed and not inverted: `where` below `url`, and the key of its signature."""

    url: str
    where: str
    sha256: str
    signature: str


@dataclass(frozen=True, slots=True)
class ImageTask:
    """What is left to do with one image; an empty `key` or `signature` is nothing."""

    url: str
    key: str
    signature: str
    where: str
    sha256: str
    prompt: str


def invert_missing(
    run: Run, pool: Pool, progress: Progress, extra: Sequence[SignTask] = (), counters: Counters | None = None
) -> None:
    """Invert and sign what the cache does not hold, if there is anything left to generate from it.

    Images that the model cannot take are set aside (`actors.set_aside`), and a note names each. Raises RuntimeError
    when it takes none.
    """
    if run.open_wave() is None and not extra:
        return
    cached = _cached(run)
    _tell(run, progress, _set_aside(run, extra, cached))
    missing = missing_tasks(run, extra, cached)
    if run.open_wave() is None:
        missing = [task for task in missing if not task.key]  # nothing will be generated: a report alone is wanted
    if not missing:
        return
    total = len(run.source.images) + len(extra)
    counters = counters or Counters()
    progress.stage(INVERT, total, total - len(missing))
    config = run.config
    size = config.inversion.micro_batch
    tasks = task_table(missing, size)
    _sweep(run, tasks)
    retries = task_retries(size, size, config.engine.attempts)
    spec = inverter_spec(run)
    done, set_aside = 0, []
    for result in stream(tasks, Inverter, spec, pool.at_most(tasks.num_rows), retries=retries, progress=progress):
        progress.advance(result["images"])
        counters.computed(INVERT, result["unet_rows"])
        _tell(run, progress, result["set_aside"])
        done, set_aside = done + result["images"], [*set_aside, *result["set_aside"]]
        if len(set_aside) >= done > MAX_KILLERS:
            # Each batch is too small to say so itself.
            for name in set_aside:
                run.storage.remove(name)
            raise RuntimeError(f"not one of {done} images can be inverted, so it is not the images; see the notes")


def _sweep(run: Run, tasks: pa.Table) -> None:
    """Remove journals that a dead driver's actors left about batches that are not made in this cut any more."""
    batches = {batch_name(task) for task in tasks.to_pylist()}
    for name in run.storage.names(layout.ATTEMPTS_IMAGES):
        if layout.image_batch(name) not in batches:
            run.storage.remove(f"{layout.ATTEMPTS_IMAGES}/{name}")


def _set_aside(run: Run, extra: Iterable[SignTask], cached: Collection[str]) -> list[str]:
    """Where it stands that an image of this run is set aside."""
    signatures = {run.plan.signature_key(image) for image in run.source.images} | {item.signature for item in extra}
    wanted = {layout.inversion(item.key) for item in run.plan.inversions() if item.key}
    wanted |= {layout.signature(key) for key in signatures if key}
    return sorted({layout.set_aside(name) for name in wanted} & set(cached))


def _tell(run: Run, progress: Progress, places: Iterable[str]) -> None:
    for place in places:
        found = read_set_aside(run.storage, place)
        if found is not None:
            progress.note(f"{found}; it is left out (remove {run.storage.url}/{place} to have it tried again)")


def missing_tasks(run: Run, extra: Iterable[SignTask] = (), cached: Collection[str] | None = None) -> list[ImageTask]:
    """What is missing in the cache of the images of the source and of `extra` ones, each inversion and signature once.

    An image that was set aside is not missing. Images to invert come first: what is only to be signed does not share
    their batches. `cached` is what the cache holds, if that is known already.
    """
    there = set(_cached(run) if cached is None else cached)

    def needed(key: str, name: str) -> str:
        """The key, the first time that it is asked for and not there."""
        if not key or name in there or layout.set_aside(name) in there:
            return ""
        there.add(name)
        return key

    tasks: list[ImageTask] = []
    for image, wanted in zip(run.source.images, run.plan.inversions(), strict=True):
        signature = run.plan.signature_key(image)
        task = ImageTask(
            url=run.source.url,
            key=needed(wanted.key, layout.inversion(wanted.key)),
            signature=needed(signature, layout.signature(signature)),
            where=wanted.where,
            sha256=wanted.sha256,
            prompt=wanted.prompt,
        )
        tasks.append(task)
    for item in extra:
        signature = needed(item.signature, layout.signature(item.signature))
        tasks.append(ImageTask(item.url, "", signature, item.where, item.sha256, ""))
    return sorted((task for task in tasks if task.key or task.signature), key=lambda task: not task.key)


def task_table(tasks: Iterable[ImageTask], micro_batch: int) -> pa.Table:
    """Tasks of up to a micro-batch of images each, of one source, all to be inverted or none (INVERSION_SCHEMA)."""
    rows = []
    for (url, _), group in groupby(tasks, key=lambda task: (task.url, bool(task.key))):
        images = list(group)
        for start in range(0, len(images), micro_batch):
            part = images[start : start + micro_batch]
            rows.append({"url": url, **{name: [getattr(image, name) for image in part] for name in LISTS}})
    return pa.Table.from_pylist(rows, schema=INVERSION_SCHEMA)


def _cached(run: Run) -> set[str]:
    return {name for folder in (layout.INVERSIONS, layout.SIGNATURES) for name, _ in run.storage.find(folder)}
