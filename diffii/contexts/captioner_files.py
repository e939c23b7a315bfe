"""Where a captioner lies, and how it wants its images: read from its own files, without its preprocessing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffii.errors import ModelError
from diffii.hub import everywhere, model_directory
from diffii.known_digests import files_digest

KEY = "captions.model"
"""The setting that errors name."""
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model")
_WANTED = ["*.json", "*.txt", "*.model", "*.safetensors"]
# Other frameworks' and precisions' copies of the same weights.
_UNWANTED = ["*.fp16.safetensors", "*/*", "*.bin", "*.msgpack", "*.h5", "*.ot"]


def locate(model: str) -> Path:
    """The directory of `model`, a path or a hub id (downloaded once to the hub's cache).

    Raises ModelError when it is neither, when it has no safetensors (a pickle is not opened), or no tokenizer.
    """
    path = model_directory(
        model,
        key=KEY,
        marker="config.json",
        what="a directory of a transformers model",
        instead="let the diffusion model do it: captions.method=diffusion",
        wanted=_WANTED,
        unwanted=_UNWANTED,
    )
    if not any(path.glob("*.safetensors")):
        raise ModelError(
            f"{KEY}: {model} has no safetensors file, and weights in a pickle (.bin) are not opened: they can "
            "run code. Take a model or a revision that has one, or save it with save_pretrained"
        )
    if not any(file for pattern in _VOCABULARIES for file in path.glob(pattern)):
        # transformers makes an empty tokenizer where there is none, and every caption is then empty.
        raise ModelError(f"{KEY}: {model} has no tokenizer ({', '.join(_VOCABULARIES)}); download or save it again")
    return path


def captioner_digest(model: str) -> str:
    """SHA-256 of what a captioner computes with, wherever it lies. Raises ModelError as `locate` does."""
    directory = locate(model)
    wanted = {path for pattern in _WANTED for path in directory.glob(pattern)}
    unwanted = {path for pattern in _UNWANTED for path in directory.glob(pattern)}
    return files_digest(sorted(wanted - unwanted))


def captioner_everywhere(model: str) -> str:
    """A name of a captioner that means the same files on every machine. Raises ModelError as `locate` does."""
    return everywhere(model, locate)


def image_settings(model: str, directory: Path, config: Any) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """(edge in pixels, mean, deviation) of the images a model was trained on.

    Raises ModelError without a preprocessor's file: with guessed ones the captions would be wrong without a word.
    """
    settings = _preprocessor(model, directory)
    if settings is None:
        raise ModelError(f"{KEY}: {model} has no preprocessor_config.json, so how it wants its images is unknown")
    vision = next((part for name in ("vision_config", "encoder") if (part := getattr(config, name, None))), config)
    sizes = (getattr(vision, "image_size", None), settings.get("crop_size"), settings.get("size"))
    edge = next((edge for size in sizes if (edge := _edge(size))), None)
    if edge is None:
        raise ModelError(f"{KEY}: no file of {model} says how large its images are (image_size in config.json)")
    if settings.get("do_normalize") is False:
        return edge, (0.0,) * 3, (1.0,) * 3
    try:
        return edge, tuple(settings["image_mean"]), tuple(settings["image_std"])
    except KeyError as error:
        raise ModelError(f"{KEY}: the preprocessor_config.json of {model} has no {error}") from error


def _preprocessor(model: str, directory: Path) -> dict[str, Any] | None:
    for name, part in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
        if (directory / name).is_file():
            try:
                found = json.loads((directory / name).read_text(encoding="utf-8"))
            except ValueError as error:
                raise ModelError(f"{KEY}: the {name} of {model} is damaged ({error}); download it again") from error
            return found if part is None else found.get(part)
    return None


def _edge(size: Any) -> int | None:
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    if isinstance(size, (list, tuple)):
        size = size[0] if size else None
    return int(size) if size else None
