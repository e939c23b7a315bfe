"""The inverter: images in, cached inversions out. Each image's result is one file named by its content key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from actors.model import ModelSpec, load
from diffii.dataset import layout
from diffii.dataset.storage import Storage
from diffii.embedding import Embedder
from diffii.errors import SourceError
from diffii.features import perceptual_hash
from diffii.hashing import sha256
from diffii.image_files import opener
from diffii.images import UnreadableImage, decode, fit
from diffii.invert import fixed_batches, invert
from diffii.schedule import Spacing


@dataclass(frozen=True, slots=True, kw_only=True)
class InverterSpec:
    model: ModelSpec
    source_url: str
    output_url: str
    steps: int
    spacing: Spacing
    micro_batch: int
    embedder: str | None = None
    """What near-copies are recognised by; the real images' signatures are then stored beside their inversions."""


class Inverter:
    """A callable for Ray Data: a table with one row per list of images (keys, places, hashes, prompts)."""

    def __init__(self, spec: InverterSpec) -> None:
        self._spec = spec
        self._storage = Storage(spec.output_url)
        self._read = opener(spec.source_url)
        self._backbone = load(spec.model)
        self._grid = self._backbone.grid(spec.steps, spec.spacing)
        self._embedder = Embedder.load(spec.embedder, spec.micro_batch) if spec.embedder else None

    def __call__(self, table: pa.Table) -> pa.Table:
        for task in table.to_pylist():
            self._invert(task)
        return pa.table({"images": [sum(len(task["key"]) for task in table.to_pylist())]})

    def _invert(self, task: dict[str, Any]) -> None:
        pixels = [self._pixels(where, digest) for where, digest in zip(task["where"], task["sha256"], strict=True)]
        if self._embedder is not None:
            # Before the inversions: one that is there says that its image is done.
            embeddings = self._embedder.signatures(np.stack(pixels))
            for key, image, embedding in zip(task["key"], pixels, embeddings, strict=True):
                self._storage.put_once(layout.signature(key), perceptual_hash(image) + embedding.tobytes())
        for indices, real in fixed_batches(len(pixels), self._spec.micro_batch):
            latents = self._backbone.encode(np.stack([pixels[i] for i in indices]))
            prompts = [task["prompt"][i] for i in indices]
            inversions = invert(self._backbone, latents, prompts, self._grid)
            for row in range(real):
                name = layout.inversion(task["key"][indices[row]])
                tensors = {"latent": latents[row].cpu().numpy(), "inversion": inversions[row].cpu().numpy()}
                self._storage.put_once(name, save_tensors(tensors))

    def _pixels(self, where: str, digest: str) -> np.ndarray:
        place = f"{self._spec.source_url}/{where}"
        try:
            data = self._read(where)
            if sha256(data) != digest:
                raise SourceError(f"{place} has changed since it was planned; restore it or use another output")
            return fit(decode(data), self._backbone.image_size)
        except (UnreadableImage, OSError) as error:
            raise SourceError(f"{place} was readable when it was planned and no longer is: {error}") from error


def read_inversion(storage: Storage, key: str) -> tuple[np.ndarray, np.ndarray]:
    """(clean latent, inversion) of a cached image, float32 (C, H, W). Raises FileNotFoundError."""
    tensors = load_tensors(storage.read(layout.inversion(key)))
    return tensors["latent"], tensors["inversion"]
