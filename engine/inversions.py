"""The inversion stage: every image of the source once, cached by content, so that a later run finds it done."""

from __future__ import annotations

import pyarrow as pa

from actors.inverter import Inverter
from diffii.dataset import layout
from engine.plan import Inversion
from engine.progress import Progress
from engine.run import Run
from engine.specs import inverter_spec
from engine.stream import Pool, stream

INVERSION_SCHEMA = pa.schema([(name, pa.list_(pa.string())) for name in ("key", "where", "sha256", "prompt")])


def invert_missing(run: Run, pool: Pool, progress: Progress) -> None:
    """Invert the images that the cache does not hold, if there is anything left to generate from them."""
    wanted = run.plan.inversions()
    missing = missing_inversions(run, wanted)
    if not missing or run.open_wave() is None:
        return
    progress.stage("invert", len(wanted), len(wanted) - len(missing))
    spec = inverter_spec(run.config, run.source.url, run.storage.url)
    size = run.config.inversion.micro_batch
    batches = [missing[start : start + size] for start in range(0, len(missing), size)]
    rows = [{name: [getattr(item, name) for item in batch] for name in INVERSION_SCHEMA.names} for batch in batches]
    tasks = pa.Table.from_pylist(rows, schema=INVERSION_SCHEMA)
    for result in stream(tasks, Inverter, spec, pool.at_most(len(batches)), overlap=1):
        progress.advance(result["images"])


def missing_inversions(run: Run, wanted: list[Inversion]) -> list[Inversion]:
    """The images whose inversion is not in the cache, each once."""
    there = {name.rsplit("/", 1)[-1] for name, _ in run.storage.find(layout.INVERSIONS)}
    unique = {item.key: item for item in wanted}
    return [item for key, item in unique.items() if f"{key}.safetensors" not in there]
