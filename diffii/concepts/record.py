"""What was learned: the tokens of every class, their vectors, the LoRA, and how it went."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from diffii.errors import ModelError
from diffii.hashing import digest


@dataclass(frozen=True, eq=False)
class Concepts:
    """Concepts of a data set; `Backbone.use` puts them into a model."""

    tokens: Mapping[str, tuple[str, ...]]
    """Class -> its tokens, in the order of the classes."""
    vectors: Tensor
    """Float32 (N, D): the vectors of all tokens, in the order of `tokens`."""
    lora: Mapping[str, Tensor]
    """The adapter, in any layout that diffusers reads; empty when there is none."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Metaclass, settings, losses: for people. Nothing depends on it."""

    def __post_init__(self) -> None:
        wanted = sum(len(names) for names in self.tokens.values())
        if self.vectors.ndim != 2 or len(self.vectors) != wanted:
            raise ModelError(f"the concepts have {wanted} tokens, but vectors of shape {tuple(self.vectors.shape)}")
        if not torch.isfinite(self.vectors).all():
            raise ModelError("the concepts hold a vector that is not finite: learning diverged, or the file is damaged")

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.tokens)

    @cached_property
    def rows(self) -> dict[str, int]:
        """Token -> its row of `vectors`."""
        return {token: row for row, token in enumerate(t for names in self.tokens.values() for t in names)}

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything that shapes an image: classes, tokens, vectors, adapter."""
        tensors = {"": self.vectors, **self.lora}
        parts = [[name, str(value.dtype), list(value.shape), _sha256(value)] for name, value in sorted(tensors.items())]
        return digest([[name, list(tokens)] for name, tokens in self.tokens.items()], parts)

    def extend(self, base: Concepts) -> bool:
        """Whether everything of `base` is here, to the bit, and at most tokens more."""
        same_lora = self.lora.keys() == base.lora.keys() and all(
            torch.equal(self.lora[name], value) for name, value in base.lora.items()
        )
        return same_lora and all(
            self.tokens.get(name) == tokens
            and all(torch.equal(self.vectors[self.rows[t]], base.vectors[base.rows[t]]) for t in tokens)
            for name, tokens in base.tokens.items()
        )

    def name_of(self, class_name: str) -> str:
        """What names a class in a prompt, e.g. `<c00012-0> <c00012-1>`. Raises ModelError for a class not learned."""
        if class_name not in self.tokens:
            raise ModelError(
                f"the concepts know {len(self.tokens)} classes, but not {class_name!r}; learn them on this data set"
            )
        return " ".join(self.tokens[class_name])


def _sha256(tensor: Tensor) -> str:
    raw = (
        tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        if tensor.numel()
        else torch.empty(0, dtype=torch.uint8)
    )
    return hashlib.sha256(raw.numpy().tobytes()).hexdigest()
