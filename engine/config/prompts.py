"""Settings of the words: prompts, and the contexts that come from captions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from engine.config.group import Count, Group

DIFFUSION, OWN = "diffusion", "source"


class PromptsConfig(Group):
    template: str = "a photo of a {name} {metaclass}"
    """The plain prompt. {name} is the class's words, {metaclass} the theme below."""
    metaclass: str = ""
    """Theme of the data set: bird, aircraft, car, ..."""
    class_names: dict[str, str] = Field(default_factory=dict)
    """Class -> the words that name it in a prompt. A class that is not listed is named by its own name."""
    suffixes: list[str] = Field(default_factory=list)
    """Contexts of the first stage, such as `on a branch`; or a text file with one a line."""

    @field_validator("template")
    @classmethod
    def _template_names_the_class(cls, value: str) -> str:
        try:
            value.format(name="", metaclass="")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"has a placeholder other than {{name}} and {{metaclass}}: {error}") from error
        if "{name}" not in value:
            raise ValueError("must contain {name}")
        return value

    @field_validator("suffixes", mode="before")
    @classmethod
    def _suffixes_from_file(cls, value: Any) -> Any:
        if isinstance(value, str):
            path = Path(value)
            if not path.is_file():
                raise ValueError(f"{value!r} is neither a list nor a text file with one suffix a line")
            value = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            if not value:
                raise ValueError(f"the file {path} holds no suffix")
        return value


class CaptionsConfig(Group):
    """Where contexts come from when `prompts.suffixes` names none."""

    method: Literal["auto", "source", "captioner", "diffusion", "off"] = "auto"
    """`source`: the source's own captions or contexts; `captioner`: an image-to-text model; `diffusion`: the Stable
    Diffusion model itself chooses among the candidates; `auto`: the source's own if every image has one, else diffusion
    for the embedded model, a captioner for others; `off`: no suffixes but your own."""
    model: str = "Salesforce/blip-image-captioning-base"
    """The captioner: a transformers image-to-text model by hub id or path."""
    mode: Literal["suffixes", "per-image"] = "suffixes"
    """`suffixes`: one short list for all, as published; `per-image`: each image's own context, dealt out to all classes
    alike, so that class and background are not learned together."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 10
    """Suffixes at most, in the mode `suffixes`."""
    candidates: list[str] = Field(default_factory=list)
    """What `diffusion` chooses from; by default some forty common places, or the embedded model's five."""
    condense: Literal["rule", "endpoint"] = "rule"
    """Who makes the short list of many contexts: a local rule, or a language model behind an OpenAI-compatible
    endpoint."""
    endpoint: str = ""
    """Base URL of that service. Its key is taken from the environment alone."""
    endpoint_model: str = ""
    """Model of that service."""
    endpoint_key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; empty for a service that wants none."""
    beams: Annotated[int, Field(ge=1, le=32)] = 3
    """Beams of a captioner; 1 is greedy."""
    max_tokens: Annotated[int, Field(ge=4, le=512)] = 30
    """Length of a caption."""
    micro_batch: Count = 16
    """Images of every call of a captioner."""
