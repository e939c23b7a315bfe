"""Under which names things computed once per image are kept: all that shapes them, and nothing else (law 5).

So a run with another seed or guidance, which inversions do not depend on, finds those of the run before.
"""

from __future__ import annotations

from typing import Any

from diffii.hashing import digest
from diffii.images import named
from engine.config import OFF, Config
from engine.source import SourceImage

LATENTS_STORED = 2
"""How latents and inversions lie in their files: 2, in their order. Until then a model that computes with channels
last, as the autoencoder does, had them stored in the order of its memory, and rows began from scattered numbers."""


class CacheKeys:
    """The names that a configuration (resolved) and a model's weights give.

    `weights` and `embedder` are digests: what the two models are, wherever they lie.
    """

    def __init__(self, config: Config, weights: str, embedder: str) -> None:
        self._config, self._weights, self._embedder = config, weights, embedder

    def latent(self, image: SourceImage) -> str:
        """Where an image's encoding is stored, for arms that take nothing more of it."""
        config = self._config
        base = [LATENTS_STORED, self._weights, config.backbone.dtype, config.inversion.micro_batch]
        return digest("latent", base, image.sha256, *self._fit)[:40]

    def inversion(self, image: SourceImage, prompt: str, concepts: str) -> str:
        """Where an image's inversion is stored; it is inverted under `prompt`, with `concepts` (a digest, or "")."""
        inversion, backbone = self._config.inversion, self._config.backbone
        base: list[Any] = [LATENTS_STORED, self._weights, backbone.dtype]
        base += [inversion.preset, inversion.steps, inversion.micro_batch]
        base += [["diffuse", inversion.diffuse]] if inversion.diffuse else []
        base += [["solver", inversion.solver]] if inversion.solver != "ddim" else []
        base += ["compiled"] if backbone.compile else []
        base += [concepts] if concepts else []
        return digest([*base, *self._fit], image.sha256, prompt)[:40]

    def signature(self, image: SourceImage) -> str:
        """Where a real image's signature is stored, held-out images included; "" when no embedder is configured.

        The image is fitted to the model's size before it is signed, which the model's weights stand for, and the
        embedder's last bits may follow from its micro-batch.
        """
        embedder = self._config.dedup.embedder
        if embedder == OFF:
            return ""
        how = [self._config.inversion.micro_batch, *self._fit]
        return digest("signature", image.sha256, embedder, self._embedder, self._weights, *how)[:40]

    @property
    def _fit(self) -> list[tuple[str, Any]]:
        return [*named(self._config.source.fit).items()]
