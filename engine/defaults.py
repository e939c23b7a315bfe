"""What `auto` means for this source, and the settings that a preset brings: all below what the user set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffii.garments.catalog import CLASSES, COARSE_OF, TEMPLATE
from diffii.weights import EMBEDDED
from engine.config import AUTO, Config
from engine.settings import from_flat

STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"

REFERENCE: dict[str, Any] = {
    "inversion.steps": 200,
    "inversion.diffuse": 0.0,
    "inversion.norm": "parents",
    "generation.steps": 25,
    "generation.guidance_scale": 7.5,
}
"""The published code's numbers; its leading grid comes with the preset's name."""

FAST: dict[str, Any] = {
    "inversion.steps": 15,
    "inversion.solver": "dpm++",
    "inversion.diffuse": 0.07,
    "generation.steps": 12,
    "generation.solver": "dpm++",
    "generation.guidance_interval": [0.2, 0.7],
}
"""A third of the model's work, at no cost in accuracy over all classes that could be measured; classes that the model
had never seen lose by it (tests/bench/NOTES.md)."""

GARMENTS: dict[str, Any] = {
    "prompts.template": TEMPLATE,
    "prompts.class_names": COARSE_OF,
    "generation.guidance_scale": 1.5,
}
"""The embedded model knows five coarse words; at 32 px a guidance of 7.5 burns the colours, and 1.5 taught classifiers
more than 3 (tests/bench/NOTES.md)."""

PRESETS = {"reference": REFERENCE, "fast": FAST}
"""What `inversion.preset` puts in the place of defaults."""


def resolve(config: Config, classes: tuple[str, ...]) -> Config:
    """A configuration without `auto` in what identifies a run; every key the user set stays as set."""
    explicit = explicit_keys(config)
    model = config.backbone.model
    if model == AUTO:
        model = EMBEDDED if set(classes) <= set(CLASSES) else STABLE_DIFFUSION
    values: dict[str, Any] = {}
    if model == EMBEDDED:
        values |= GARMENTS
    values |= PRESETS.get(config.inversion.preset, {})
    return from_flat({**values, **explicit, "backbone.model": model})


def explicit_keys(config: Config) -> dict[str, Any]:
    """The dotted keys that somebody set, with their values."""
    flat = config.flat()
    return {
        f"{group}.{key}": flat[f"{group}.{key}"]
        for group in config.model_fields_set
        for key in getattr(config, group).model_fields_set
    }


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The same configuration with some dotted keys set anew. Raises ConfigError."""
    return from_flat({**explicit_keys(config), **values})
