"""Concepts as files: two in safetensors that diffusers opens, and a JSON that says what they are.

learned_embeds.safetensors          token -> vector
pytorch_lora_weights.safetensors    the LoRA, as diffusers writes it
concepts.json                       classes, tokens, metaclass, settings, losses, digest; written last

tokens = [{name: vector} for name, vector in safetensors.torch.load_file("learned_embeds.safetensors").items()]
pipeline.load_textual_inversion(tokens)
pipeline.load_lora_weights(folder, weight_name="pytorch_lora_weights.safetensors")
"""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from diffii.concepts.legacy import NO_LORA, foreign_file, foreign_folder
from diffii.concepts.record import Concepts
from diffii.dataset import layout
from diffii.dataset.storage import Storage
from diffii.errors import ModelError, OutputError
from diffii.model_checks import one_line

FOLDER = f"{layout.OWN}/concepts"
VECTORS = "learned_embeds.safetensors"
LORA = "pytorch_lora_weights.safetensors"
ABOUT = "concepts.json"
VERSION = 1


def save_concepts(concepts: Concepts, storage: Storage, folder: str = "") -> None:
    """Publish concepts in `folder` of `storage`. Raises OutputError when other concepts are there already."""
    vectors = {name: concepts.vectors[row].contiguous() for name, row in concepts.rows.items()}
    about = {
        "version": VERSION,
        "digest": concepts.digest,
        "tokens": {name: list(tokens) for name, tokens in concepts.tokens.items()},
        "lora": bool(concepts.lora),
        **concepts.about,
    }
    files = {VECTORS: save(vectors, {"format": "pt"})}
    if concepts.lora:
        files[LORA] = save({name: value.contiguous() for name, value in concepts.lora.items()}, {"format": "pt"})
    for name, data in files.items():
        path = f"{folder}/{name}" if folder else name
        if not storage.put_once(path, data) and storage.read(path) != data:
            raise OutputError(f"{storage.url}/{path} is of other concepts; remove it or give another folder")
    # Last: where it is, the others are whole.
    text = json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False)
    storage.put_once(f"{folder}/{ABOUT}" if folder else ABOUT, text.encode())


def open_concepts(url: str) -> Concepts:
    """The concepts at `url`: a folder of ours or of Diff-Mix or Diff-II, or one textual-inversion file.

    A file's LoRA is the `pytorch_lora_weights.safetensors` beside it, if there is one. Raises ModelError naming what
    is missing or damaged and what to give instead.
    """
    storage = Storage(url)
    names = storage.names()
    if ABOUT in names:
        return read_concepts(storage)
    if names and not url.endswith((".bin", ".pt", ".safetensors")):
        return foreign_folder(storage, names)
    parent, _, name = storage.url.rpartition("/")
    beside = Storage(parent or "/")
    if ABOUT in beside.names() and name in (VECTORS, ABOUT):
        return read_concepts(beside)
    return foreign_file(beside, name)


def read_concepts(storage: Storage, folder: str = "") -> Concepts:
    """Concepts that `save_concepts` wrote. Raises ModelError, FileNotFoundError when there are none."""
    inside = f"{folder}/" if folder else ""
    where = f"{storage.url}/{folder}".rstrip("/")
    try:
        about: dict[str, Any] = json.loads(storage.read(inside + ABOUT))
        tokens = {str(name): tuple(str(t) for t in found) for name, found in about.pop("tokens").items()}
        version, digest, has_lora = about.pop("version"), about.pop("digest"), about.pop("lora")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{where}/{ABOUT} is damaged ({one_line(error)}); learn the concepts again") from error
    if version != VERSION:
        raise ModelError(f"{where}/{ABOUT} is of version {version}; this diffii reads version {VERSION}")
    vectors = _tensors(storage, inside + VECTORS)
    if missing := [t for found in tokens.values() for t in found if t not in vectors]:
        raise ModelError(f"{where}/{VECTORS} lacks the token {missing[0]}; learn the concepts again")
    rows = [vectors[t].float() for found in tokens.values() for t in found]
    lora = _tensors(storage, inside + LORA) if has_lora else NO_LORA
    concepts = Concepts(tokens, torch.stack(rows), lora, about)
    if concepts.digest != digest:
        raise ModelError(f"the concepts in {where} are not those that {ABOUT} describes; learn them again")
    return concepts


def _tensors(storage: Storage, name: str) -> dict[str, Tensor]:
    try:
        return load(storage.read(name))
    except (FileNotFoundError, SafetensorError) as error:
        trouble = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({one_line(error)})"
        raise ModelError(f"{storage.url}/{name} {trouble}; learn the concepts again") from error
