"""How a class is named in prompts."""

from __future__ import annotations

import re

from engine.config import Config


def class_words(config: Config, class_name: str) -> str:
    """What a class is called in plain words: those configured, else those of its folder's name."""
    words = config.prompts.class_names.get(class_name)
    # `001.Black_footed_Albatross` -> `Black footed Albatross`: numbers and underscores are file names' habits.
    return words or re.sub(r"^\d+[._\- ]+", "", class_name).replace("_", " ").strip() or class_name


def plain_prompt(config: Config, class_name: str, tokens: str | None = None) -> str:
    """The prompt of a class without context; it is named by its concept's tokens if it has some, else by words."""
    name = tokens or class_words(config, class_name)
    text = config.prompts.template.format(name=name, metaclass=config.prompts.metaclass)
    return " ".join(text.split())
