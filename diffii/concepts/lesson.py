"""What is to be learned: classes, the words that prompts have for them, and which image shows which."""

from __future__ import annotations

from dataclasses import dataclass

from diffii.concepts.tokens import token


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What is to be learned: classes, how prompts name them, and which image shows which."""

    classes: tuple[str, ...]
    words: tuple[str, ...]
    """What each class is called in plain words; its tokens start from those that the tokenizer knows."""
    labels: tuple[int, ...]
    """Class of each image."""
    template: str = "a photo of a {name} {metaclass}"
    metaclass: str = ""
    contexts: tuple[str, ...] = ()
    """What stands behind each image's plain prompt, such as `on grass`; empty: nothing, for all of them."""

    def __post_init__(self) -> None:
        if len(self.words) != len(self.classes) or (self.contexts and len(self.contexts) != len(self.labels)):
            raise ValueError("a lesson has one entry of words per class and one context per image, or no contexts")
        if not self.labels:
            raise ValueError("a lesson needs at least one image")

    def tokens(self, count: int) -> dict[str, tuple[str, ...]]:
        return {name: tuple(token(i, k) for k in range(count)) for i, name in enumerate(self.classes)}

    def prompts(self, count: int) -> list[str]:
        """The prompt of each image."""
        names = [" ".join(tokens) for tokens in self.tokens(count).values()]
        contexts = self.contexts or ("",) * len(self.labels)
        texts = [
            f"{self.template.format(name=names[label], metaclass=self.metaclass)} {context}"
            for label, context in zip(self.labels, contexts, strict=True)
        ]
        return [" ".join(text.split()) for text in texts]
