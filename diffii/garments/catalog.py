"""What the embedded data set is about: its classes, contexts, and what the model was told of them."""

from __future__ import annotations

CLASSES: tuple[str, ...] = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
"""Fine classes, in the order of Fashion-MNIST's labels 0..9."""

COARSE_OF: dict[str, str] = {
    "T-shirt": "top",
    "Trouser": "trousers",
    "Pullover": "top",
    "Dress": "dress",
    "Coat": "top",
    "Sandal": "shoe",
    "Shirt": "top",
    "Sneaker": "shoe",
    "Bag": "bag",
    "Ankle boot": "shoe",
}
"""The only word the model has for each class. The engine's default `prompts.class_names` for garments."""

COARSE: tuple[str, ...] = ("top", "trousers", "dress", "shoe", "bag")

NOVEL: tuple[str, ...] = ("Coat", "Sandal")
"""Classes of which pretraining never saw a photo. Results name them apart from the other eight (*base*)."""

CONTEXTS: dict[str, str] = {
    "studio": "in a studio",
    "grass": "on grass",
    "water": "on water",
    "sand": "on sand",
    "night": "at night",
}
"""Background name -> the suffix that asks for it in a prompt."""

TEMPLATE = "a photo of a {name}"


def caption(coarse: str, context: str | None) -> str:
    """The pretraining caption of a photo, e.g. `a photo of a shoe on grass`; no context gives the plain prompt."""
    plain = TEMPLATE.format(name=coarse)
    return plain if context is None else f"{plain} {CONTEXTS[context]}"
