"""The inverter: real images in, cached inversions and signatures out, each one file named by its content key.

Signing and inverting are two steps, each behind the shield with a journal of its own: what one image does to a step
costs neither its mates nor the other step. As in the generator two calls run at once, one beside the model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from actors.attempts import Journal, Process, of_images
from actors.board import COMPUTING, STAGING, WAITING
from actors.desk import Desk, Hold
from actors.failures import describe, refuse_if_all
from actors.model import ActorSpec, load, load_embedder
from actors.preemption import gone_nodes, ray_node
from actors.set_aside import INVERTED, SIGNED, SetAside
from actors.shield import Shield
from actors.unet_rows import UnetRows
from diffii.circle import gaussian
from diffii.dataset import layout
from diffii.dataset.storage import Storage
from diffii.errors import SourceError
from diffii.features import perceptual_hash
from diffii.hashing import digest, seed64, sha256
from diffii.images import ACCEPTED, Fit, UnreadableImage, decode, fit
from diffii.invert import invert
from diffii.kinds import Solver
from diffii.schedule import Spacing, steps_within
from diffii.sources import opener

RESULT = pa.schema([("images", pa.int64()), ("set_aside", pa.list_(pa.string())), ("unet_rows", pa.int64())])
"""One row per task: its images, the files that say which of them were set aside, and what the U-Net computed since the
last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InverterSpec(ActorSpec):
    """Without an `embedder` nothing is signed."""

    steps: int
    """0 encodes alone: the cached file then holds the latent and no inversion."""
    spacing: Spacing
    diffuse: float = 0.0
    """Share of the noise path that is diffused forwards instead of inverted."""
    solver: Solver = "ddim"
    fit: Fit = "crop"
    """How images become square."""


@dataclass(frozen=True, slots=True)
class _Images:
    """A task's images, pixels uint8 (S, S, 3)."""

    task: dict[str, Any]
    pixels: list[np.ndarray]
    name: str


class Inverter:
    """A callable for Ray Data: a table with one list of images per row (see `engine.inversions.INVERSION_SCHEMA`)."""

    def __init__(self, spec: InverterSpec) -> None:
        self._spec = spec
        self._process = Process(spec.run, ray_node())
        self._desk = Desk(spec, self._process)
        self._storage = Storage(spec.output_url)
        self._readers: dict[str, Callable[[str], bytes]] = {}
        self._backbone = load(spec.model)
        self._grid = self._backbone.grid(spec.steps, spec.spacing) if spec.steps else None
        self._diffused = steps_within(self._grid, spec.diffuse) if self._grid else 0
        self._embedder = load_embedder(spec, spec.micro_batch)
        device = self._backbone.device
        self._shield = Shield(spec.micro_batch, device, spec.stall_timeout, self._desk.last_words)
        self._unet_rows = UnetRows()
        self._backbone.epsilon = self._unet_rows.counting(self._shield.watchdog.beating(self._backbone.epsilon))
        self._gpu = threading.Lock()
        self._desk.open(self._shield.watchdog)

    def __call__(self, table: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self.make_task(task) for task in table.to_pylist()], schema=RESULT)

    def make_task(self, task: dict[str, Any]) -> dict[str, Any]:
        """Sign and invert the images of one task. Raises SourceError naming an image that is not what was planned."""
        name = batch_name(task)
        with self._desk.holding(f"batch {name} of images") as hold:
            images = _Images(task, self._pixels(task, hold), name)
            set_aside: list[str] = []
            if self._embedder is not None:
                set_aside += self._step(SIGNED, "signature", images, hold, self._sign, layout.signature)
            set_aside += self._step(INVERTED, "key", images, hold, self._invert, layout.inversion)
        return {"images": len(images.pixels), "set_aside": set_aside, "unet_rows": self._unet_rows.read()}

    # -- one step: signing or inverting -----------------------------------------------------------------------------

    def _step(
        self,
        step: str,
        column: str,
        images: _Images,
        hold: Hold,
        model: Callable[[_Images, list[int]], list[bytes]],
        place: Callable[[str], str],
    ) -> list[str]:
        """Run the model over the images whose key in `column` is not empty; returns the files of those set aside.

        `model` gives the bytes to store for the images of a full batch, `place` the name of a key's file.
        """
        keys: list[str] = images.task[column]
        if not any(keys):
            return []
        journal = Journal(self._storage, of_images(step, images.name), self._process, gone_nodes, hold.excused)
        journal.check_memory(self._spec.micro_batch)
        faults = {row: reason for row, reason in journal.blamed(self._spec.attempts).items() if keys[row]}
        good = [bool(key) and row not in faults for row, key in enumerate(keys)]
        hold.at(WAITING)
        with self._gpu:
            hold.at(COMPUTING)
            outcomes = dict(self._shield.make(journal, good, lambda batch: model(images, batch)))
        hold.at(STAGING)
        errors = {row: outcome for row, outcome in outcomes.items() if isinstance(outcome, Exception)}
        refuse_if_all(list(errors.values()), len(outcomes), f"{images.task['url']}/{images.task['where'][0]}")
        faults |= {row: describe(error) for row, error in errors.items()}
        for row, outcome in outcomes.items():
            if not isinstance(outcome, Exception):
                self._storage.put_once(place(keys[row]), outcome)
                hold.moved()
        set_aside = [self._set_aside(step, images.task, row, faults[row], place(keys[row])) for row in faults]
        journal.clear()
        return set_aside

    def _set_aside(self, step: str, task: dict[str, Any], row: int, reason: str, name: str) -> str:
        image = f"{task['url']}/{task['where'][row]}"
        return SetAside(image, task["sha256"][row], step, reason).put(self._storage, name)

    def _sign(self, images: _Images, batch: list[int]) -> list[bytes]:
        assert self._embedder is not None
        pixels = [images.pixels[row] for row in batch]
        embeddings = self._embedder.signatures(np.stack(pixels))
        return [perceptual_hash(image) + row.tobytes() for image, row in zip(pixels, embeddings, strict=True)]

    def _invert(self, images: _Images, batch: list[int]) -> list[bytes]:
        latents = self._backbone.encode(np.stack([images.pixels[row] for row in batch]))
        if self._grid is None:
            return [_packed(latent=latent) for latent in latents.cpu().numpy()]
        prompts = [images.task["prompt"][row] for row in batch]
        noise = self._noise([images.task["sha256"][row] for row in batch]) if self._diffused else None
        inversions = invert(
            self._backbone, latents, prompts, self._grid, self._diffused, noise, solver=self._spec.solver
        )
        pairs = zip(latents.cpu().numpy(), inversions.cpu().numpy(), strict=True)
        return [_packed(latent=latent, inversion=inversion) for latent, inversion in pairs]

    def _noise(self, hashes: list[str]) -> torch.Tensor:
        # An image's noise is its own, so that its inversion is the same in every run and batch.
        shape = self._backbone.latent_shape
        return torch.from_numpy(np.stack([gaussian(seed64("diffuse", sha), shape) for sha in hashes]))

    # -- images -----------------------------------------------------------------------------------------------------

    def _pixels(self, task: dict[str, Any], hold: Hold) -> list[np.ndarray]:
        url = task["url"]
        if url not in self._readers:
            self._readers[url] = opener(url)
        pixels: list[np.ndarray] = []
        for where, expected in zip(task["where"], task["sha256"], strict=True):
            pixels.append(self._read(self._readers[url], url, where, expected))
            hold.moved()
        return pixels

    def _read(self, read: Callable[[str], bytes], url: str, where: str, expected: str) -> np.ndarray:
        place = f"{url}/{where}"
        try:
            data = read(where)
            if sha256(data) != expected:
                raise SourceError(f"{place} has changed since it was planned; restore it or use another output")
            return fit(decode(data, ACCEPTED), self._backbone.image_size, self._spec.fit)
        except (UnreadableImage, OSError) as error:
            raise SourceError(f"{place} was readable when it was planned and no longer is: {error}") from error


def batch_name(task: dict[str, Any]) -> str:
    """Names a batch by what is to be done, so that a later run of the same batch finds its journal."""
    return digest(task["url"], task["key"], task["signature"])[:16]


def _packed(**arrays: np.ndarray) -> bytes:
    # safetensors writes an array's memory as it lies, and says nothing when that is not its order: a model that
    # computes with channels last would leave every number in another's place.
    return save_tensors({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def read_inversion(storage: Storage, key: str) -> tuple[np.ndarray, np.ndarray]:
    """(clean latent, inversion) of a cached image, float32 (C, H, W). Raises FileNotFoundError.

    The inversion is empty where only the latent was asked for.
    """
    tensors = load_tensors(storage.read(layout.inversion(key)))
    return tensors["latent"], tensors.get("inversion", np.empty(0, np.float32))
