"""The caption stage: what each real image shows besides its subject, and the suffixes that come of it.

Each image's context is a file of its own, named by what shaped it, so that a later run finds it. The table of all and
the list of suffixes are written for people and for other runs (`prompts.suffixes` takes the list).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from actors.captioner import LISTS, TASK_SCHEMA, CaptionerActor, CaptionerSpec, Diffusion, ImageToText
from diffii.contexts.candidates import default_candidates
from diffii.contexts.captioner_files import captioner_digest, captioner_everywhere
from diffii.contexts.diffusion import DiffusionSettings
from diffii.contexts.endpoint import Endpoint, condense_by_endpoint
from diffii.contexts.files import (
    ImageContext,
    context_key,
    contexts_to_parquet,
    known_keys,
    read_context,
    suffixes_from_text,
    suffixes_to_text,
)
from diffii.contexts.subject import SubjectWords, context_of
from diffii.contexts.suffixes import condense
from diffii.dataset import layout
from diffii.errors import SourceError
from diffii.hashing import digest
from diffii.images import named
from diffii.weights import EMBEDDED
from engine.config import AUTO, DIFFUSION, OFF, OWN, Config
from engine.progress import Progress
from engine.prompts import class_words, plain_prompt
from engine.run import Run
from engine.source import Source
from engine.specs import CPU_THREADS, model_spec
from engine.stream import Pool, stream

TABLE, SUFFIXES = f"{layout.CONTEXTS}.parquet", f"{layout.CONTEXTS}-suffixes.txt"

_READS = 32
"""Contexts are small: on an object store latency alone decides how long reading them takes."""


def caption_images(run: Run, pool: Pool, progress: Progress) -> list[ImageContext]:
    """A context for every image of the source, in its order; empty when captions are not wanted.

    They are not when `captions.method` is off, or when the user gave suffixes. Raises ModelError or SourceError.
    """
    if not wanted(run.config):
        return []
    if from_source(run.config, run.source):
        return _own(run)
    method = _method(run)
    about = _about(method, run.plan.weights)
    how = run.config.source.fit
    about |= named(how)
    seen = [plain_prompt(run.config, name) if isinstance(method, Diffusion) else "" for name in run.source.classes]
    images = run.source.images
    keys = [context_key(image.sha256, seen[image.label], about) for image in images]
    there = known_keys(run.storage)
    missing = [number for number, key in enumerate(keys) if key not in there]
    if missing:
        progress.stage("caption", len(images), len(images) - len(missing))
        size = _micro_batch(method)
        rows = []
        for start in range(0, len(missing), size):
            part = [(keys[n], images[n].where, images[n].sha256, seen[images[n].label]) for n in missing[start:][:size]]
            rows.append({"url": run.source.url, **dict(zip(LISTS, map(list, zip(*part, strict=True)), strict=True))})
        tasks = pa.Table.from_pylist(rows, schema=TASK_SCHEMA)
        spec = CaptionerSpec(
            output_url=run.storage.url,
            method=method,
            fit=how,
            stall_timeout=run.config.engine.stall_timeout,
            spot_notices=run.config.actors.spot_notices,
        )
        for result in stream(tasks, CaptionerActor, spec, pool.at_most(len(rows)), overlap=1, progress=progress):
            progress.advance(result["images"])
    with ThreadPoolExecutor(_READS) as readers:
        return list(readers.map(lambda key: read_context(run.storage, key), keys))


def suffixes_of(run: Run, contexts: Sequence[ImageContext], progress: Progress) -> tuple[str, ...]:
    """The suffixes of a run: the user's, or those that the contexts come to (method.md section 1).

    Raises ModelError when a configured endpoint does not answer.
    """
    config = run.config
    if not contexts:
        return tuple(config.prompts.suffixes)
    found = [context.context for context in contexts if context.context]
    if config.captions.mode == "per-image":
        suffixes = tuple(found)
    elif config.captions.condense == "endpoint":
        suffixes = tuple(_condensed(run, [context.caption for context in contexts]))
    else:
        suffixes = tuple(condense(found, config.captions.limit))
    if not suffixes:
        progress.note("no caption tells a context: prompts have no suffix; prompts.suffixes takes a list of your own")
    run.storage.put(TABLE, contexts_to_parquet(contexts))
    run.storage.put(SUFFIXES, suffixes_to_text(dict.fromkeys(suffixes)))
    return suffixes


def wanted(config: Config) -> bool:
    """Whether images are captioned at all."""
    return config.captions.method != OFF and not config.prompts.suffixes


def from_source(config: Config, source: Source) -> bool:
    """Whether the source's own captions and contexts are taken, once `wanted`."""
    method = config.captions.method
    return method == OWN or (method == AUTO and all(image.caption or image.context for image in source.images))


def by_diffusion(config: Config, source: Source) -> bool:
    """Whether the Stable Diffusion model itself tells contexts, once `wanted`."""
    method = config.captions.method
    embedded = method == AUTO and config.backbone.model == EMBEDDED
    return (method == DIFFUSION or embedded) and not from_source(config, source)


def _own(run: Run) -> list[ImageContext]:
    """What the source says of its images; a context stands as it is, a caption loses its subject."""
    images, subjects = run.source.images, _subjects(run)
    if not any(image.caption or image.context for image in images):
        raise SourceError(
            f"captions.method={OWN}: {run.source.url} brings no captions: no column caption, text or context, and no "
            ".txt beside the images of a tar; choose another method"
        )
    return [
        ImageContext(
            sha256=image.sha256,
            caption=image.caption or image.context,
            context=image.context or context_of(image.caption, subjects),
            method=OWN,
        )
        for image in images
    ]


def _subjects(run: Run) -> SubjectWords:
    words = [class_words(run.config, name) for name in run.source.classes]
    return SubjectWords.of(words, run.config.prompts.metaclass)


def _condensed(run: Run, captions: list[str]) -> list[str]:
    """What the service made of these captions. It is asked once per data set: it costs money, and its next answer would
    be another."""
    config = run.config
    endpoint, limit = _endpoint(config), config.captions.limit
    name = layout.condensed(digest(sorted(captions), config.prompts.metaclass, endpoint.url, endpoint.model, limit))
    data = run.storage.read_or_none(name)
    if data is None:
        made = condense_by_endpoint(captions, config.prompts.metaclass, endpoint, limit)
        run.storage.put_once(name, suffixes_to_text(made))
        data = run.storage.read(name)
    return suffixes_from_text(data, f"{run.storage.url}/{name}")


def _method(run: Run) -> ImageToText | Diffusion:
    config = run.config
    captions = config.captions
    if by_diffusion(config, run.source):
        return Diffusion(
            model=model_spec(config, weights=run.plan.weights),
            candidates=tuple(captions.candidates) or default_candidates(config.backbone.model),
            settings=DiffusionSettings(micro_batch=config.inversion.micro_batch),
        )
    return ImageToText(
        model=captioner_everywhere(captions.model),
        weights=captioner_digest(captions.model),
        micro_batch=captions.micro_batch,
        beams=captions.beams,
        max_tokens=captions.max_tokens,
        subjects=_subjects(run),
        threads=CPU_THREADS,
    )


def _about(method: ImageToText | Diffusion, weights: str) -> dict[str, Any]:
    """All that shapes a context: what the model is, not where it lies, nor how many threads work on it."""
    kind = {"kind": type(method).__name__}
    if isinstance(method, Diffusion):
        settings = {"candidates": method.candidates, "settings": asdict(method.settings)}
        return {**kind, "weights": weights, "dtype": method.model.dtype, **settings}
    subjects = {name: sorted(words) for name, words in asdict(method.subjects).items()}
    reading = {"micro_batch": method.micro_batch, "beams": method.beams, "max_tokens": method.max_tokens}
    return {**kind, "weights": method.weights, "subjects": subjects, **reading}


def _micro_batch(method: ImageToText | Diffusion) -> int:
    return method.micro_batch if isinstance(method, ImageToText) else method.settings.micro_batch


def _endpoint(config: Config) -> Endpoint:
    captions = config.captions
    return Endpoint(url=captions.endpoint, model=captions.endpoint_model, key_variable=captions.endpoint_key_variable)
