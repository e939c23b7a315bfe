"""`replay`: make one sample again from the log alone, and say whether it is the same to the bit."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import pyarrow.compute as pc

from actors.generator import Generator
from diffii.dataset import log
from diffii.errors import ModelError, OutputError
from diffii.weights import locate, weights_digest
from engine.prepare import load_run
from engine.row import Row
from engine.run import Run
from engine.specs import generator_spec, model_spec


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What came of it. `image` is the new image, encoded as the data set's are; empty when the row has none."""

    sample_id: str
    class_name: str
    ordinal: int
    outcome: str
    reason: str
    published_sha256: str
    replayed_sha256: str
    recipe: str
    image: bytes

    @property
    def identical(self) -> bool:
        return bool(self.published_sha256) and self.published_sha256 == self.replayed_sha256


def replay(url: str, sample_id: str, model: str | None = None) -> Replay:
    """Make a published or lost sample again, at its micro-batch shape, on this machine.

    `model` says where the model is, if not where it was. Raises OutputError when the sample is not of this data set or
    its inversions are gone, ModelError when the weights are others.
    """
    run = load_run(url)
    row, published = _find(run, sample_id)
    config = run.config
    if model is not None:
        config = config.model_copy(update={"backbone": config.backbone.model_copy(update={"model": model})})
    if weights_digest(locate(config.backbone.model)) != run.plan.weights:
        raise ModelError(f"{config.backbone.model} is not the model that made {run.storage.url}; name it with --model")
    spec = replace(generator_spec(run), embedder=None)
    generator = Generator(replace(spec, model=replace(spec.model, model=model_spec(config).model)))
    record = generator.make_row({**asdict(row)})
    return Replay(
        sample_id=sample_id,
        class_name=run.source.classes[row.label],
        ordinal=row.ordinal,
        outcome=record["outcome"],
        reason=record["reason"],
        published_sha256=published,
        replayed_sha256=record["image_sha256"],
        recipe=row.recipe,
        image=record["image"],
    )


def _find(run: Run, sample_id: str) -> tuple[Row, str]:
    """The plan row of a sample and the hash of its published image, empty when it has none."""
    for table in run.sidecars(["sample_id", "label", "ordinal", "image_sha256"]):
        for found in table.filter(pc.field("sample_id") == sample_id).to_pylist():
            return _planned(run, found["label"], found["ordinal"]), found["image_sha256"]
    for entry in run.commits():
        for row in _lost_rows(run, entry):
            if row.sample_id == sample_id:
                return row, ""
    raise OutputError(f"{run.storage.url} has no sample {sample_id} that was published or lost")


def _lost_rows(run: Run, entry: log.CommitEntry) -> list[Row]:
    wave = run.waves[entry.wave]
    first = entry.first * run.config.commit.chunk_size
    numbers = sorted(int(number) for rows in entry.lost.values() for number in rows)
    plan = run.plan_of(wave)
    return [plan.rows(wave, first + number, first + number + 1)[0] for number in numbers]


def _planned(run: Run, label: int, ordinal: int) -> Row:
    """A class's row by its ordinal, in the season whose wave called for it."""
    wave = next(wave for wave in run.waves if label < len(wave.stops) and ordinal < wave.stops[label])
    return run.plan_of(wave).row(label, ordinal)
