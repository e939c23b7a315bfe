"""A model by its name: a local directory, a URL, or a repository of the hub, downloaded once to the hub's own cache."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from diffii.errors import ModelError
from diffii.model_cache import copied, is_url


def model_directory(
    model: str, *, key: str, marker: str, what: str, instead: str, wanted: Sequence[str], unwanted: Sequence[str]
) -> Path:
    """The directory of `model`, told by the file `marker` in it.

    `key` is the setting that named the model, `what` such a directory is called, `instead` what else a user may give;
    of a repository, or of `owner/name@revision`, the files that match `wanted` and not `unwanted` are taken. Raises
    ModelError naming the mend.
    """
    if is_url(model):
        return copied(model, key=key, marker=marker, wanted=wanted, unwanted=unwanted)
    path = Path(model).expanduser()
    if (path / marker).is_file():
        return path
    if path.exists() or model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise ModelError(
            f"{key}: {model} is not {what} (no {marker} in it). "
            f"Give the directory that save_pretrained wrote, a hub id, or {instead}"
        )
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return _downloaded(model, tuple(wanted), tuple(unwanted), constants.HF_HUB_CACHE)
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"{key}: {model} is neither a local directory nor to be had from the hub ({type(error).__name__}). "
            f"Check the name and the network, give a local path, or {instead}"
        ) from error


@functools.cache
def _downloaded(model: str, wanted: tuple[str, ...], unwanted: tuple[str, ...], cache: str) -> Path:
    """A repository's files, as this process found them first.

    Its newest commit may be another by the time a run of days begins its next wave, and its actors were to compute with
    what was planned; nor is the hub to be asked anew for each of them.
    """
    from huggingface_hub import snapshot_download

    name, revision = of_repository(model)
    place = snapshot_download(
        name, revision=revision, cache_dir=cache, allow_patterns=list(wanted), ignore_patterns=list(unwanted)
    )
    return Path(place)


def of_repository(model: str) -> tuple[str, str | None]:
    """A repository's name, and the revision if one was given (`owner/name@revision`)."""
    name, _, revision = model.partition("@")
    return name, revision or None


def everywhere(model: str, locate: Callable[[str], Path], built_in: str = "") -> str:
    """A name of `model` that means the same files on every machine, wherever a process is begun.

    A path becomes absolute, and a repository of the hub is named with its commit: its newest one may be another
    tomorrow. `locate` finds the directory, `built_in` needs none. Raises what `locate` raises.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return str(path.resolve())
    if model == built_in or is_url(model):
        return model
    # The hub's cache calls a snapshot by its commit.
    return f"{of_repository(model)[0]}@{locate(model).name}"
