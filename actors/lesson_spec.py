"""What is to be learned in Ray, from what, and where it goes.

_diffii/concepts/job-<key>/checkpoint-<step>.safetensors      the newest two
_diffii/concepts/job-<key>/result.json                        the digest of what was learned; written last
_diffii/concepts/<digest>/                                    the concepts (see diffii.concepts.files)
"""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.board import Watched
from actors.model import ModelSpec
from diffii.concepts.files import FOLDER
from diffii.concepts.lesson import Lesson
from diffii.concepts.settings import LearnSettings
from diffii.hashing import digest
from diffii.images import Fit, named


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerSpec(Watched):
    """What the workers are told."""

    model: ModelSpec
    weights: str
    """`diffii.weights.weights_digest` of the model."""
    source_url: str
    images: tuple[tuple[str, str], ...]
    """(place below source_url, SHA-256) of each image, in the order of the lesson's labels."""
    lesson: Lesson
    settings: LearnSettings = field(default_factory=LearnSettings)
    workers: int = 1
    fit: Fit = "crop"
    """How images become square."""
    base: str = ""
    """Digest of concepts in the output that stay as they are: only tokens of classes with images are learned."""

    @property
    def key(self) -> str:
        """Names the job: everything that the concepts follow from."""
        lesson = self.lesson
        about = [list(lesson.classes), list(lesson.words), list(lesson.labels), list(lesson.contexts)]
        images = [image for _, image in self.images]
        model = [self.weights, self.model.dtype, lesson.template, lesson.metaclass]
        more = [*named(self.fit).items(), *(["base", self.base] if self.base else [])]
        return digest(about, images, model, self.settings.to_dict(), *more)[:32]

    @property
    def folder(self) -> str:
        return f"{FOLDER}/job-{self.key}"


def concepts_folder(concepts_digest: str) -> str:
    """Where concepts of a digest lie in a data set."""
    return f"{FOLDER}/{concepts_digest[:32]}"
