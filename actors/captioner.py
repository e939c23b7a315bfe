"""The captioner: images in, contexts out. Each image's result is one small file named by its content key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from actors.attempts import PREEMPTED, Process
from actors.board import COMPUTING, STAGING, Watched
from actors.desk import Desk, Hold
from actors.failures import NoRoom, with_room
from actors.model import ModelSpec, another, load
from actors.preemption import leave_if_lost, on_sigterm, ray_node
from diffii.contexts.captioner import Captioner
from diffii.contexts.captioner_files import captioner_digest
from diffii.contexts.diffusion import DiffusionSettings, choose_contexts
from diffii.contexts.files import ImageContext, put_context
from diffii.contexts.subject import SubjectWords, context_of
from diffii.dataset.storage import Storage
from diffii.errors import ModelError, SourceError
from diffii.hashing import seed64, sha256
from diffii.images import ACCEPTED, Fit, UnreadableImage, decode, fit
from diffii.sources import opener

LISTS = ("key", "where", "sha256", "prompt")
TASK_SCHEMA = pa.schema([("url", pa.string())] + [(name, pa.list_(pa.string())) for name in LISTS])
"""One row per task: images of one source. `where` is below `url`, `key` is `diffii.contexts.files.context_key`'s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageToText:
    """Captions by a `transformers` model, from which the subject is removed."""

    model: str
    micro_batch: int
    beams: int
    max_tokens: int
    subjects: SubjectWords
    threads: int
    """CPU threads of the model."""
    weights: str = ""
    """Digest that the model must have (`diffii.contexts.captioner_files`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diffusion:
    """Contexts chosen by the Stable Diffusion model itself."""

    model: ModelSpec
    candidates: tuple[str, ...]
    settings: DiffusionSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionerSpec(Watched):
    """What the captioners are told."""

    method: ImageToText | Diffusion
    fit: Fit = "crop"
    """How images become square."""


class CaptionerActor:
    """A callable for Ray Data: a table with one list of images per row (TASK_SCHEMA) -> how many were done."""

    def __init__(self, spec: CaptionerSpec) -> None:
        self._desk = Desk(spec, Process(spec.run, ray_node()))
        on_sigterm(lambda: self._desk.last_words(PREEMPTED))
        self._storage = Storage(spec.output_url)
        self._readers: dict[str, Callable[[str], bytes]] = {}
        self._contexts: Callable[[list[bytes], dict[str, Any]], list[ImageContext]]
        if isinstance(spec.method, ImageToText):
            self._contexts = _image_to_text(spec.method, spec.fit)
            self._setting = f"captions.micro_batch: {spec.method.micro_batch}"
        else:
            self._contexts = _diffusion(spec.method, spec.fit, self._desk)
            self._setting = f"inversion.micro_batch: {spec.method.settings.micro_batch}"
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._desk.open()

    def __call__(self, table: pa.Table) -> pa.Table:
        """One row: `images` in the tasks, `written` of them by this call, `empty` ones without a context.

        Raises SourceError when an image has changed or gone since it was planned, ModelError without memory.
        """
        images = written = empty = 0
        for task in table.to_pylist():
            with self._desk.holding(_words(task)) as hold:
                contexts = self._of(task, hold)
                hold.at(STAGING)
                for key, context in zip(task["key"], contexts, strict=True):
                    written += put_context(self._storage, key, context)
                    hold.moved()
            empty += sum(not context.context for context in contexts)
            images += len(contexts)
        return pa.table({"images": [images], "written": [written], "empty": [empty]})

    def _of(self, task: dict[str, Any], hold: Hold) -> list[ImageContext]:
        data: list[bytes] = []
        for where, digest in zip(task["where"], task["sha256"], strict=True):
            data.append(self._bytes(task["url"], where, digest))
            hold.moved()
        hold.at(COMPUTING)
        try:
            return with_room(lambda: self._contexts(data, task)) if data else []
        except NoRoom as full:
            raise ModelError(
                f"{self._setting} images at a time do not fit into the memory of this device ({full}); set a smaller "
                "one, or use a larger card (or one that nothing else uses), and run the same command again"
            ) from full
        except RuntimeError as error:
            leave_if_lost(self._device, error, self._desk.last_words)
            raise

    def _bytes(self, url: str, where: str, digest: str) -> bytes:
        if url not in self._readers:
            self._readers[url] = opener(url)
        try:
            data = self._readers[url](where)
        except (UnreadableImage, OSError) as error:
            raise _gone(f"{url}/{where}", error) from error
        if sha256(data) != digest:
            raise SourceError(f"{url}/{where} has changed since it was planned; restore it or use another output")
        return data


def _words(task: dict[str, Any]) -> str:
    first = f" from {task['where'][0]} on" if task["where"] else ""
    return f"the contexts of {len(task['where'])} images of {task['url']}{first}"


def _image_to_text(method: ImageToText, how: Fit) -> Callable[[list[bytes], dict[str, Any]], list[ImageContext]]:
    torch.set_num_threads(method.threads)
    if method.weights and captioner_digest(method.model) != method.weights:
        raise another("captions.model", method.model)
    captioner = Captioner.load(method.model, method.micro_batch, method.beams, method.max_tokens)

    def contexts(data: list[bytes], task: dict[str, Any]) -> list[ImageContext]:
        captions = captioner.captions(_pixels(data, task, captioner.edge, how))
        return [
            ImageContext(
                sha256=digest, caption=caption, context=context_of(caption, method.subjects), method="captioner"
            )
            for digest, caption in zip(task["sha256"], captions, strict=True)
        ]

    return contexts


def _diffusion(method: Diffusion, how: Fit, desk: Desk) -> Callable[[list[bytes], dict[str, Any]], list[ImageContext]]:
    backbone = load(method.model)
    backbone.epsilon = desk.moving(backbone.epsilon)

    def contexts(data: list[bytes], task: dict[str, Any]) -> list[ImageContext]:
        images = _pixels(data, task, backbone.image_size, how)
        seeds = [seed64(digest) for digest in task["sha256"]]
        choices = choose_contexts(backbone, images, task["prompt"], seeds, method.candidates, method.settings)
        return [
            ImageContext(
                sha256=digest,
                caption=f"{prompt} {choice.context}",
                context=choice.context,
                method="diffusion",
                score=choice.score,
                margin=choice.margin,
            )
            for digest, prompt, choice in zip(task["sha256"], task["prompt"], choices, strict=True)
        ]

    return contexts


def _pixels(data: list[bytes], task: dict[str, Any], edge: int, how: Fit) -> np.ndarray:
    """uint8 (N, edge, edge, 3)."""
    images = []
    for where, content in zip(task["where"], data, strict=True):
        try:
            images.append(fit(decode(content, ACCEPTED), edge, how))
        except UnreadableImage as error:
            raise _gone(f"{task['url']}/{where}", error) from error
    return np.stack(images)


def _gone(place: str, error: Exception) -> SourceError:
    return SourceError(f"{place} was readable when it was planned and no longer is: {error}")
