"""The one configuration of a run: every key, its range, its default, and whether it may change later.

Keys are dotted, `group.name`. YAML files, `--set key=value` and the Python API all end in `Config`.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from diffii.arms import DIFF_II
from engine.config.data import PARQUET, OutputConfig, SourceConfig
from engine.config.group import AUTO, OFF, Group
from engine.config.method import ArmConfig, BackboneConfig, GenerationConfig, InversionConfig, LearnConfig
from engine.config.prompts import DIFFUSION, OWN, CaptionsConfig, PromptsConfig
from engine.config.work import (
    BALANCED,
    FACTOR,
    ActorsConfig,
    CommitConfig,
    DedupConfig,
    EngineConfig,
    ExpansionConfig,
)

__all__ = [
    "AUTO",
    "BALANCED",
    "DIFFUSION",
    "FACTOR",
    "GROWABLE",
    "OFF",
    "OPERATIONAL",
    "OWN",
    "UNSAID",
    "Config",
    "ExpansionConfig",
    "OutputConfig",
    "SourceConfig",
]


class Config(Group):
    """A whole run."""

    source: SourceConfig = SourceConfig()
    output: OutputConfig = OutputConfig()
    prompts: PromptsConfig = PromptsConfig()
    captions: CaptionsConfig = CaptionsConfig()
    learn: LearnConfig = LearnConfig()
    backbone: BackboneConfig = BackboneConfig()
    inversion: InversionConfig = InversionConfig()
    generation: GenerationConfig = GenerationConfig()
    arm: ArmConfig = ArmConfig()
    expansion: ExpansionConfig = ExpansionConfig()
    dedup: DedupConfig = DedupConfig()
    actors: ActorsConfig = ActorsConfig()
    engine: EngineConfig = EngineConfig()
    commit: CommitConfig = CommitConfig()

    def flat(self) -> dict[str, Any]:
        """Dotted key -> plain value, in the order of declaration."""
        return {f"{group}.{key}": value for group, keys in self.model_dump().items() for key, value in keys.items()}

    def identity(self) -> dict[str, Any]:
        """The settings that may never change once a run has begun (law 4).

        What is as it was before there was a setting for it is not named: Diff-II by no arm, and nothing in `UNSAID`.
        """
        return dict(self._identity)

    @cached_property
    def _identity(self) -> dict[str, Any]:
        # Asked for at every commit, by the card.
        kept = {key: value for key, value in self.flat().items() if key not in GROWABLE | OPERATIONAL}
        # What further formats are kept beside it is free.
        kept["output.format"] = PARQUET
        said = {key: value for key, value in kept.items() if key not in UNSAID or value != UNSAID[key]}
        return {key: value for key, value in said.items() if self.arm.name != DIFF_II or not key.startswith("arm.")}


GROWABLE = frozenset({"expansion.factor", "expansion.per_class", "expansion.target", "expansion.max_attempts"})
"""May change upwards: more rows of the same plan, which `engine.next_wave` holds every class to."""
UNSAID: dict[str, Any] = {
    "source.fit": "crop",
    "backbone.compile": False,
    "learn.micro_batch": None,
    "inversion.diffuse": 0.0,
    "inversion.solver": "ddim",
    "generation.solver": "ddim",
    "generation.guidance_interval": [0.0, 1.0],
    "output.quality": None,
    "output.mark": False,
}
"""What a log means that does not name these keys: it was begun when rows were as these values make them."""
OPERATIONAL = frozenset(
    {"source.url", "source.license", "source.images", "source.split", "source.holdout_split"}
    | {"source.max_pixels", "source.max_bytes", "source.min_edge"}
    | {"output.url", "output.include_real", "backbone.model", "backbone.license"}
    | {"actors.min", "actors.max", "actors.gpus"}
    | {"actors.spot_notices", "actors.allow_smaller_batch"}
    | {"engine.stall_timeout", "engine.attempts", "engine.probe", "dedup.holdout", "learn.workers", "learn.concepts"}
    | {"captions.endpoint", "captions.endpoint_model", "captions.endpoint_key_variable"}
)
"""Free: no byte depends on them, unless `actors.allow_smaller_batch` lets it. Source, model and concepts are identified
by what they hold, not by where they lie; of a service that condenses captions, its answer is what counts."""
