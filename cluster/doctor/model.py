"""Checks of what a run computes with and begins from: model, attention kernel, source."""

from __future__ import annotations

from pathlib import Path

import fsspec

from cluster.doctor.finding import Finding
from cluster.doctor.storage import BACKENDS
from diffii.errors import DiffiiError, ModelError
from diffii.hub import of_repository
from diffii.weights import locate
from engine.config import AUTO, Config
from engine.defaults import STABLE_DIFFUSION

INDEX = "model_index.json"
HUB_SECONDS = 20


def check_model(config: Config, node: str = "") -> Finding:
    """The model is here or can be downloaded; nothing is. `auto` counts as Stable Diffusion 1.5."""
    model = STABLE_DIFFUSION if config.backbone.model == AUTO else config.backbone.model
    if not _of_hub(model):
        try:
            locate(model)
        except ModelError as error:
            return Finding("model", str(error), _MEND, node)
        return Finding("model", f"{model} is there", "", node)
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    try:
        name, revision = of_repository(model)
        if isinstance(try_to_load_from_cache(name, INDEX, revision=revision), str):
            return Finding("model", f"{model} is downloaded", "", node)
        if constants.HF_HUB_OFFLINE:
            return Finding("model", f"{model} is not downloaded, and HF_HUB_OFFLINE forbids it", _MEND, node)
        get_hf_file_metadata(hf_hub_url(name, INDEX, revision=revision), timeout=HUB_SECONDS)
    # The hub's client raises its own errors and those of whichever HTTP library it was built on.
    except Exception as error:  # noqa: BLE001
        return Finding("model", f"{model} is not to be had from the hub: {type(error).__name__}", _MEND, node)
    return Finding("model", f"{model} can be downloaded", "", node)


def _of_hub(name: str) -> bool:
    """Whether a name is one of a repository: `owner/name`, and no folder that is here."""
    return (
        name.count("/") == 1 and "://" not in name and not name.startswith((".", "/", "~")) and not Path(name).exists()
    )


_MEND = (
    "put its files on the disk that HF_HOME names on every machine (hf download), give a path by backbone.model, or "
    "for a model that is not public set HF_TOKEN in the machines' environment"
)


def check_attention(config: Config, node: str = "") -> Finding:
    """The attention kernel that the run asks for answers on this machine's device."""
    import torch

    from diffii.attention import choose

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        kernel, why = choose(config.backbone.attention, device)
        q = torch.randn(1, 2, 64, 40, device=device)
        torch.nn.functional.scaled_dot_product_attention(q, q, q).sum().item()
    except ModelError as error:
        return Finding("attention", str(error), "set backbone.attention=auto", node)
    except RuntimeError as error:  # CUDA's own errors
        said = str(error).splitlines()[0]
        return Finding(
            "attention", f"{device} does not compute: {said}", "check the driver and what else holds the GPU", node
        )
    return Finding("attention", f"{kernel} on {device.type} ({why})", "", node)


def check_source(config: Config, node: str = "") -> Finding:
    """The labelled images can be reached from here; they are not read."""
    url = config.source.url
    mend = "check source.url, and let the role of this machine list and read there"
    try:
        files, root = fsspec.core.url_to_fs(f"hf://datasets/{url}" if _of_hub(url) else url)
        if files.exists(root):
            return Finding("source", url, "", node)
        return Finding("source", f"{url}: there is nothing", mend, node)
    except (ImportError, DiffiiError, *BACKENDS) as error:
        return Finding("source", f"{url}: {type(error).__name__}: {' '.join(str(error).split())[:200]}", mend, node)
