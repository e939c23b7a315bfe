"""The sets that a study trains on: each draw's images, and what every arm makes of them.

Arms of one draw share what they have in common: contexts, concepts and inversions are paid for once.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa

from diffii.dataset.history import newest_version
from diffii.dataset.storage import Storage
from diffii.dataset.tables import write_table
from diffii.hashing import digest
from diffii.images import encode
from diffii.protocols.task import Task
from engine.evaluate.study import Study
from engine.evaluate.tasks import draw, own_images
from engine.expand import expand
from engine.prepare import prepare
from engine.progress import Progress

SETS = "sets"
SOURCE = "source"


class Sets:
    """The sets of a study, by arm and seed."""

    def __init__(self, study: Study, progress: Progress) -> None:
        self._study, self._progress = study, progress
        self._made: dict[tuple[str, int], str] = {}

    def made(self, arm: str, seed: int) -> str:
        """The URL of an arm's set of one draw, made now if it is not there. Raises what `engine.expand` raises."""
        if (arm, seed) not in self._made:
            self._made[arm, seed] = _made_set(self._study, arm, seed, self._progress)
        return self._made[arm, seed]


def _made_set(study: Study, arm: str, seed: int, progress: Progress) -> str:
    task = draw(study.questions, seed)
    folder = f"{Storage(study.url).url}/{SETS}/{_name(study, task)}/seed-{seed:04d}"
    url = f"{folder}/{arm}-{study.set_settings(arm)}"
    run = prepare(study.config_of(task, arm, _source(task, folder), url))
    if run.complete:
        return url
    siblings = [f"{folder}/{name}" for name in Storage(folder).names() if name != SOURCE]
    begun = [other for other in siblings if other != url and newest_version(Storage(other)) >= 0]
    progress.note(f"{task.name}, seed {seed}, {arm}: {url}")
    expand(run, progress, begun if run.history.version < 0 else ())
    return url


def _name(study: Study, task: Task) -> str:
    parts = [task.name, f"{task.shots}-shot" if task.shots else "", f"if-{task.imbalance}" if task.imbalance else ""]
    # A draw of one's own images depends on all of them: without validation images, some of the source's are kept apart.
    own = own_images(study.questions)
    return "-".join(part for part in (*parts, digest(own)[:8] if own else "") if part)


def _source(task: Task, folder: str) -> str:
    """The draw's training images as one Parquet file below `folder`; the URL of what holds it."""
    Storage(folder).put_once(f"{SOURCE}/train.parquet", _parquet(task))
    return f"{folder}/{SOURCE}"


def _parquet(task: Task) -> bytes:
    # A folder per class could not hold every class's name, nor a class without images.
    images = [
        {
            "bytes": sample.read() if sample.pixels is None else encode(sample.pixels, "png"),
            "path": Path(sample.where).name,
        }
        for sample in task.train
    ]
    names = {"names": list(task.classes), "_type": "ClassLabel"}
    features = {"info": {"features": {"image": {"_type": "Image"}, "label": names}}}
    table = pa.table(
        {
            "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "label": pa.array([sample.label for sample in task.train], pa.int64()),
        }
    ).replace_schema_metadata({"huggingface": json.dumps(features)})
    return write_table(table)
