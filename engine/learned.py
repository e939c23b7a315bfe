"""What is learned from the source before the plan is made: how prompts name its classes, and its contexts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from diffii.hashing import digest


@dataclass(frozen=True)
class Learned:
    """Kept in the log's first entry, so that a plan can be computed again from the log alone."""

    concepts: str = ""
    """Digest of the concepts in use; empty where classes are named by words."""
    earlier: Mapping[str, str] = field(default_factory=dict)
    """Class -> digest of the concepts that first knew it, where those in use took it over from them unchanged."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Class -> its tokens, as they stand in a prompt."""
    suffixes: tuple[str, ...] = ()
    """What first-stage prompts end with, one of them per row. With `captions.mode=per-image` one per real image."""

    def concepts_of(self, class_name: str) -> str:
        """What a class's rows name as their concepts: nothing that is learned later changes it."""
        return self.earlier.get(class_name, self.concepts)

    @property
    def suffixes_digest(self) -> str:
        return digest(list(self.suffixes)) if self.suffixes else ""
