"""Where a Stable Diffusion model lies and what it is: a name or path -> a local directory -> a content hash."""

from __future__ import annotations

import hashlib
from pathlib import Path

from diffii.errors import ModelError

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
    path = Path(model).expanduser()
    if (path / "model_index.json").is_file():
        # transformers makes an empty tokenizer where there is none, and every prompt is then the same.
        if missing := [part for part in _PARTS if not any((path / part).glob("*.json"))]:
            raise ModelError(f"backbone.model: {model} is incomplete: nothing in its {', '.join(missing)}.")
        return path
    if path.exists() or model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise ModelError(
            f"backbone.model: {model} is not a diffusers pipeline directory (no model_index.json in it). "
            "Give the directory that StableDiffusionPipeline.save_pretrained wrote, a hub id, or "
            f"`{EMBEDDED}` for the small model that ships with diffii."
        )
    return _download(model)


def weights_digest(directory: Path) -> str:
    """SHA-256 over names and contents of every file that shapes the model's output."""
    total = hashlib.sha256()
    for part in _PARTS:
        for path in sorted((directory / part).rglob("*")):
            if path.suffix in {".json", ".txt", ".safetensors"} and ".fp16." not in path.name:
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                total.update(f"{path.relative_to(directory).as_posix()} {content}\n".encode())
    return total.hexdigest()


def _download(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=_WANTED, ignore_patterns=_UNWANTED))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"backbone.model: {model} is neither a local directory nor to be had from the hub "
            f"({type(error).__name__}). Check the name and the network, give a local path, or try "
            f"`--set backbone.model={EMBEDDED}` for the small model that ships with diffii."
        ) from error
