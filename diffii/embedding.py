"""What an image is recognised by: a vision model's features, cut down to 64 small integers.

    N  images   S  their edge   D  features of the model   B  micro-batch

The integers are what near-copies are decided on: stored beside every row, compared without rounding, so that the same
bytes give the same decision on any machine. The model is `lite0`, an ImageNet EfficientNet-lite0 that pip installs
and that needs no network, or any `transformers` vision model by hub id or path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional

from diffii.embedder_weights import KEY, LITE0, lite0_weights, missing_lite0
from diffii.errors import ModelError
from diffii.invert import fixed_batches
from diffii.model_checks import one_line
from diffii.signatures import quantise

_LITE0_EDGE = 224
_LITE0_ENLARGE = 3
"""Small images are not blown up to 224: beyond three times its edge an image has nothing to show but blur, costs
five times as much, and a one-pixel shift of a 32 px image is told from its neighbours less well."""

Features = Callable[[Tensor], Tensor]


class Embedder:
    """A frozen vision model in float32. Make one with `Embedder.load`; `name` is part of a run's fingerprint."""

    def __init__(
        self,
        name: str,
        features: Features,
        edge: Callable[[int], int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        micro_batch: int,
        device: torch.device,
    ) -> None:
        self.name, self.micro_batch = name, micro_batch
        self._features, self._edge, self._device = features, edge, device
        self._mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=device).view(1, 3, 1, 1)

    @classmethod
    def load(cls, name: str, micro_batch: int, device: str | None = None, key: str = KEY) -> Embedder:
        """Load `lite0`, or a `transformers` vision model by hub id or directory (safetensors only).

        Raises ModelError when packages or weights are missing, naming `key` and what to install or give.
        """
        if micro_batch < 1:
            raise ValueError(f"a micro-batch has at least one row, got {micro_batch}")
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if name == LITE0:
            # The official EfficientNet-lite is trained on (x - 127) / 128, not on ImageNet's mean and deviation.
            mean, std = (127 / 255,) * 3, (128 / 255,) * 3
            return cls(LITE0, _lite0(where, key), _lite0_edge, mean, std, micro_batch, where)
        features, edge, mean, std = _transformers(name, where, key)
        return cls(name, features, lambda _: edge, mean, std, micro_batch, where)

    @torch.inference_mode()
    def embed(self, images: np.ndarray) -> np.ndarray:
        """Pooled features, float32 (N, D), of uint8 RGB images (N, S, S, 3).

        Every model call has exactly `micro_batch` rows, the last one padded by repetition: a row's features depend on
        the row and on that number alone. Raises ValueError for images of another type or shape.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (images.shape[1], images.shape[1], 3):
            raise ValueError(f"images to embed are uint8 (N, S, S, 3), got {images.dtype} {images.shape}")
        if not len(images):
            raise ValueError("there is no image to embed")
        edge = self._edge(images.shape[1])
        parts: list[np.ndarray] = []
        for rows, real in fixed_batches(len(images), self.micro_batch):
            batch = torch.from_numpy(images[rows]).to(self._device)
            parts.append(self._features(self._prepare(batch, edge))[:real].float().cpu().numpy())
        return np.concatenate(parts)

    def signatures(self, images: np.ndarray) -> np.ndarray:
        """`quantise(embed(images))`: int8 (N, 64)."""
        return quantise(self.embed(images))

    def _prepare(self, batch: Tensor, edge: int) -> Tensor:
        """uint8 (B, S, S, 3) -> float32 (B, 3, edge, edge), normalised as the model was trained."""
        x = batch.permute(0, 3, 1, 2).float()
        if x.shape[-1] != edge:
            x = functional.interpolate(x, size=(edge, edge), mode="bicubic", align_corners=False, antialias=True)
        return (x.clamp(0.0, 255.0) / 255.0 - self._mean) / self._std


# -- the offline default ----------------------------------------------------------------------------------------------


def _lite0(device: torch.device, key: str) -> Features:
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise missing_lite0(error.name, key) from error
    state = torch.load(lite0_weights(key), map_location="cpu", weights_only=True)
    networks: dict[int, Any] = {}

    def features(x: Tensor) -> Tensor:
        edge = x.shape[-1]
        if edge not in networks:
            # The padding of every convolution is fixed when the network is made, for one edge.
            network = EfficientNet.from_name("efficientnet-lite0", image_size=edge)
            network.load_state_dict(state)
            networks[edge] = network.eval().requires_grad_(False).to(device)
        return networks[edge].extract_features(x).mean((2, 3))

    return features


def _lite0_edge(size: int) -> int:
    return min(_LITE0_EDGE, -(-_LITE0_ENLARGE * size // 32) * 32)


# -- models of transformers -------------------------------------------------------------------------------------------


def _transformers(
    name: str, device: torch.device, key: str
) -> tuple[Features, int, tuple[float, ...], tuple[float, ...]]:
    from transformers import AutoModel

    try:
        model, report = AutoModel.from_pretrained(
            name, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(
            f"{key}: {name} does not load as a transformers vision model from safetensors: "
            f"{one_line(error)}. Give a directory or a hub id, or {LITE0}, which needs no network"
        ) from error
    missing = set(report["missing_keys"])
    pooler = {key for key in missing if "pooler" in key}
    if missing - pooler:
        raise ModelError(f"{key}: {name} is incomplete: it has no {', '.join(sorted(missing - pooler)[:3])}")
    model = model.eval().requires_grad_(False).to(device)
    settings = _processor(name)
    mean = tuple(settings.get("image_mean") or (0.485, 0.456, 0.406))
    std = tuple(settings.get("image_std") or (0.229, 0.224, 0.225))

    def features(x: Tensor) -> Tensor:
        # A pooler whose weights the file lacks was filled at random: another embedding in every process.
        return _pooled(model, x, trust_pooler=not pooler)

    return features, _edge(model.config, settings), mean, std


def _pooled(model: Any, x: Tensor, trust_pooler: bool) -> Tensor:
    """One vector per image (B, D): the model's own pooling, else the mean over tokens or places."""
    out = model.get_image_features(pixel_values=x) if hasattr(model, "get_image_features") else model(pixel_values=x)
    if isinstance(out, Tensor):
        return out
    if trust_pooler and getattr(out, "pooler_output", None) is not None:
        return out.pooler_output.flatten(1)
    hidden = out.last_hidden_state
    return hidden.mean((2, 3)) if hidden.ndim == 4 else hidden.mean(1)


def _processor(name: str) -> dict[str, Any]:
    """The model's `preprocessor_config.json`; empty without one, and ImageNet's mean and deviation are taken."""
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        return ImageProcessingMixin.get_image_processor_dict(name)[0]
    except OSError:
        return {}


def _edge(config: Any, settings: dict[str, Any]) -> int:
    """The edge a model wants: what its positions were made for, else what its preprocessing cuts to, else 224."""
    wanted = getattr(getattr(config, "vision_config", config), "image_size", None)
    for found in (wanted, settings.get("crop_size"), settings.get("size")):
        if isinstance(found, dict):
            found = found.get("height") or found.get("shortest_edge")
        if isinstance(found, (list, tuple)):
            found = found[0]
        if found:
            return int(found)
    return _LITE0_EDGE
