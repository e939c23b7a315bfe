"""Concepts that other programs learned: Diff-Mix and Diff-II folders, and plain textual-inversion files.

What comes in gets our own token names, so that class names of any kind work in prompts.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from diffii.concepts.record import Concepts
from diffii.concepts.tokens import token
from diffii.dataset.storage import Storage
from diffii.errors import ModelError
from diffii.model_checks import one_line

NO_LORA: dict[str, Tensor] = {}
_LORA = "pytorch_lora_weights.safetensors"
_DICT, _PLACES, _NAMES = "learned_embeds_dict", "name2placeholder", "placeholder2name"
_WANTED = (
    f"Give a folder that diffii learned, the `learned_embeds-steps-*.bin` of Diff-Mix or Diff-II ({_DICT} and "
    f"{_PLACES}), or a textual-inversion file (token -> vector)"
)


def foreign_folder(storage: Storage, names: Sequence[str]) -> Concepts:
    """The newest `learned_embeds*` of a training's folder, with the LoRA beside it. Raises ModelError."""
    found = [name for name in names if re.fullmatch(r"learned_embeds.*\.(bin|pt|safetensors)", name)]
    if not found:
        raise ModelError(f"{storage.url} holds no concepts: no concepts.json and no learned_embeds* in it. {_WANTED}.")
    return foreign_file(storage, max(found, key=_progress))


def foreign_file(storage: Storage, name: str) -> Concepts:
    """One file of tokens, pickled (opened with weights_only) or in safetensors. Raises ModelError."""
    where = f"{storage.url}/{name}"
    content = _open(storage, name, where)
    if not isinstance(content, Mapping):
        raise ModelError(f"{where} holds a {type(content).__name__}, not a dictionary. {_WANTED}.")
    known: Mapping[Any, Any] = content
    if _DICT in known:
        vectors = _by_class(known, where)
    elif _PLACES in known or _NAMES in known:
        raise ModelError(f"{where} lacks the key {_DICT}. {_WANTED}.")
    elif "string_to_param" in known:
        raise ModelError(f"{where} is in the format of the web UI (string_to_param). {_WANTED}.")
    else:
        vectors = {str(key).strip("<>"): value for key, value in known.items()}
    matrices = {key: _matrix(value, key, where) for key, value in vectors.items()}
    if not matrices:
        raise ModelError(f"{where} holds no token. {_WANTED}.")
    widths = {matrix.shape[1] for matrix in matrices.values()}
    if len(widths) > 1:
        raise ModelError(f"{where} holds vectors of different widths: {sorted(widths)}. {_WANTED}.")
    tokens = {
        key: tuple(token(index, part) for part in range(len(matrix)))
        for index, (key, matrix) in enumerate(matrices.items())
    }
    return Concepts(tokens, torch.cat(list(matrices.values())), _lora(storage), {"source": where})


def _open(storage: Storage, name: str, where: str) -> Any:
    try:
        data = storage.read(name)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ModelError(f"there are no concepts at {where}. {_WANTED}.") from error
    try:
        if name.endswith(".safetensors"):
            return load(data)
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own message advises to load the file with weights_only=False.
        raise ModelError(
            f"{where} was refused: it is damaged, or it holds more than tensors and plain values, and opening it "
            f"could run its author's code. {_WANTED}."
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{where} is damaged or of another kind ({one_line(error)}). {_WANTED}.") from error


def _by_class(content: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Class name -> what its placeholder learned, from the layout of Diff-Mix."""
    learned, places = content[_DICT], content.get(_PLACES)
    if places is None and isinstance(content.get(_NAMES), Mapping):
        places = {name: placeholder for placeholder, name in content[_NAMES].items()}
    if not isinstance(learned, Mapping) or not isinstance(places, Mapping):
        raise ModelError(f"{where} lacks the key {_PLACES}, by which classes find their tokens. {_WANTED}.")
    if missing := [name for name, placeholder in places.items() if placeholder not in learned]:
        raise ModelError(f"{where}: {_DICT} lacks {places[missing[0]]!r}, the token of {missing[0]!r}. {_WANTED}.")
    return {str(name): learned[placeholder] for name, placeholder in places.items()}


def _matrix(value: Any, key: str, where: str) -> Tensor:
    """The vectors of one class, float32 (tokens, D)."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim not in (1, 2) or not value.numel():
        what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ModelError(f"{where}: {key!r} is {what}, not a vector. {_WANTED}.")
    return value.detach().float().reshape(-1, value.shape[-1])


def _lora(storage: Storage) -> dict[str, Tensor]:
    data = storage.read_or_none(_LORA)
    try:
        return NO_LORA if data is None else load(data)
    except SafetensorError as error:
        raise ModelError(f"{storage.url}/{_LORA} is damaged: {one_line(error)}") from error


def _progress(name: str) -> tuple[float, str]:
    """Later files of a training sort higher: by their step; one without a step is the last."""
    steps = re.search(r"(\d+)\D*$", name)
    return (float(steps[1]) if steps else float("inf"), name)
