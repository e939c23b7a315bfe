"""The learning stage: concepts of the source's classes, learned once per data set, or the user's own opened."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import ray

from actors.learner import finished, learn
from actors.lesson_spec import LearnerSpec, concepts_folder
from diffii.concepts.files import open_concepts, read_concepts, save_concepts
from diffii.concepts.lesson import Lesson
from diffii.concepts.record import Concepts
from diffii.concepts.settings import PRESETS, LearnSettings
from diffii.errors import ConfigError, OutputError
from diffii.weights import EMBEDDED
from engine.config import AUTO, OFF, Config
from engine.progress import Progress
from engine.prompts import class_words
from engine.run import Run
from engine.specs import model_spec
from engine.stream import Pool
from engine.watch import watching


def learn_concepts(run: Run, pool: Pool, progress: Progress, contexts: Sequence[str] = ()) -> Concepts | None:
    """The concepts of a run, published below its output; None with `learn.concepts=off`.

    `contexts` says what each image of the source shows besides its class, if that is known. Raises ModelError,
    SourceError or OutputError.
    """
    wanted = run.config.learn.concepts
    if wanted == OFF:
        return None
    if wanted != AUTO:
        concepts = open_concepts(wanted)
        for name in run.source.classes:
            concepts.name_of(name)  # raises for a class that they do not know
        save_concepts(concepts, run.storage, concepts_folder(concepts.digest))
        return concepts
    return _learned(learner_spec(run, contexts), run, pool, progress)


def workers(config: Config, cores: int) -> int:
    """How many processes learn; `cores` is 0 where they do on GPUs."""
    return min(config.learn.workers or max(1, cores), learn_settings(config).parts)


def _learned(spec: LearnerSpec, run: Run, pool: Pool, progress: Progress) -> Concepts:
    if (done := finished(spec, run.storage)) is not None:
        return done
    steps = spec.settings.steps
    progress.stage("learn", steps, 0, "steps")
    told = 0

    def watch(step: int, _: int, loss: float) -> None:
        nonlocal told
        if step > told:  # after a worker's death it goes on from an earlier step
            progress.advance(step - told)
            told = step

    gpus = pool.gpus if pool.gpus >= 1 else float(bool(pool.gpus))
    count = workers(run.config, 0 if gpus else min(pool.max, int(ray.cluster_resources().get("CPU", 1))))
    with watching(count, progress) as board:
        concepts = learn(dataclasses.replace(spec, board=board, workers=count), gpus=gpus, watch=watch)
    watch(int(concepts.about.get("steps", steps)), steps, 0.0)
    for trouble in _untold(concepts):
        progress.note(trouble)
    return concepts


def learn_more(
    run: Run, known: str, classes: Collection[str], pool: Pool, progress: Progress, contexts: Sequence[str] = ()
) -> Concepts:
    """Concepts that know some more classes of the run's source beside those of the digest `known`, which stay.

    Raises as `learn_concepts` does, and OutputError where the user's own do not go on from the known ones.
    """
    base = read_concepts(run.storage, concepts_folder(known))
    if run.config.learn.concepts == AUTO:
        return _learned(learner_spec(run, contexts, known, classes), run, pool, progress)
    concepts = open_concepts(run.config.learn.concepts)
    for name in classes:
        concepts.name_of(name)
    if not concepts.extend(base):
        raise OutputError(
            f"learn.concepts: those at {run.config.learn.concepts} know the classes of {run.storage.url} by other "
            "tokens or vectors, or have another LoRA; add the new classes' tokens and leave the rest as it was"
        )
    save_concepts(concepts, run.storage, concepts_folder(concepts.digest))
    return concepts


def learner_spec(
    run: Run, contexts: Sequence[str] = (), base: str = "", classes: Collection[str] | None = None
) -> LearnerSpec:
    """What is to be learned, by whom and where it goes: all classes, or some beside the concepts of digest `base`."""
    config, source = run.config, run.source
    shown = [
        number
        for number, image in enumerate(source.images)
        if classes is None or source.classes[image.label] in classes
    ]
    images = [source.images[number] for number in shown]
    return LearnerSpec(
        model=model_spec(config, weights=run.plan.weights),
        weights=run.plan.weights,
        source_url=source.url,
        output_url=run.storage.url,
        images=tuple((image.where, image.sha256) for image in images),
        lesson=Lesson(
            classes=source.classes,
            words=tuple(class_words(config, name) for name in source.classes),
            labels=tuple(image.label for image in images),
            template=config.prompts.template,
            metaclass=config.prompts.metaclass,
            contexts=tuple(contexts[number] for number in shown) if contexts else (),
        ),
        base=base,
        settings=learn_settings(config),
        fit=config.source.fit,
        stall_timeout=config.engine.stall_timeout,
        spot_notices=config.actors.spot_notices,
    )


def learn_settings(config: Config) -> LearnSettings:
    """The preset with the keys that are set beside it. Raises ConfigError naming the key that is out of range."""
    given = config.learn
    preset = given.preset if given.preset != AUTO else ("garments" if config.backbone.model == EMBEDDED else "quick")
    keys = {one.name for one in dataclasses.fields(LearnSettings)} & set(type(given).model_fields)
    values = {key: value for key in keys if (value := getattr(given, key)) is not None}
    try:
        return dataclasses.replace(PRESETS[preset], **values)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _untold(concepts: Concepts) -> list[str]:
    """What of the learning's record a user should hear."""
    stopped = concepts.about.get("stopped_at")
    return [f"learning stopped at step {stopped}: the loss on held-out noise no longer falls"] if stopped else []
