"""Where a Stable Diffusion model lies and what it is: a name or path -> a local directory -> a content hash."""

from __future__ import annotations

from pathlib import Path

from diffii.errors import ModelError
from diffii.hub import everywhere, model_directory
from diffii.known_digests import digest_of

EMBEDDED = "garments"
"""The name of the small model that ships with the package."""
EMBEDDED_DIR = Path(__file__).parent / "garments" / "weights" / "model"

_PARTS = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
_WANTED = ["model_index.json", *(f"{part}/*.json" for part in _PARTS), *(f"{part}/*.txt" for part in _PARTS)]
_WANTED += [f"{part}/*.safetensors" for part in _PARTS]
# The hub's repositories hold the same weights several times over; one copy, never a pickle.
_UNWANTED = ["*.fp16.safetensors", "*non_ema*", "*.bin", "*.ckpt"]


def locate(model: str) -> Path:
    """The local directory of `model`: the embedded name, a path, or a hub id (downloaded once to the hub's cache).

    Raises ModelError naming what was looked for, where, and the mend.
    """
    if model == EMBEDDED:
        return EMBEDDED_DIR
    path = model_directory(
        model,
        key="backbone.model",
        marker="model_index.json",
        what="a diffusers pipeline directory",
        instead=f"`{EMBEDDED}` for the small model that ships with diffii",
        wanted=_WANTED,
        unwanted=_UNWANTED,
    )
    # transformers makes an empty tokenizer where there is none, and every prompt is then the same.
    if missing := [part for part in _PARTS if not any((path / part).glob("*.json"))]:
        raise ModelError(f"backbone.model: {model} is incomplete: nothing in its {', '.join(missing)}.")
    return path


def weights_digest(directory: Path) -> str:
    """SHA-256 over names and contents of every file that shapes the model's output."""
    return digest_of(
        (path.relative_to(directory).as_posix(), path)
        for part in _PARTS
        for path in sorted((directory / part).rglob("*"))
        if path.suffix in {".json", ".txt", ".safetensors"} and ".fp16." not in path.name
    )


def model_everywhere(model: str) -> str:
    """A name of `model` that means the same files on every machine. Raises ModelError as `locate` does."""
    return everywhere(model, locate, EMBEDDED)
