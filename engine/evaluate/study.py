"""A study: which task, arms, classifiers and seeds, and under what name each of its figures is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Any

from diffii.arms import ARMS
from diffii.classifiers.job import Blend
from diffii.embedder_weights import LITE0
from diffii.errors import ConfigError
from diffii.hashing import digest
from diffii.protocols.task import Task
from engine.cache_keys import LATENTS_STORED
from engine.config import GROWABLE, Config
from engine.defaults import explicit_keys, resolve, with_values
from engine.evaluate.tasks import TUNING_SEED, Questions, draw, own_images
from engine.run import LATENTS

REAL, MIXUP, CUTMIX = "real", "mixup", "cutmix"
BLENDS: dict[str, Blend] = {MIXUP: "mixup", CUTMIX: "cutmix"}
NAMES = (REAL, MIXUP, CUTMIX, *ARMS)
PROBABILITIES = (0.3, 0.5, 0.8)
"""What a tuning tries for p."""
USUAL_PROBABILITY = 0.5
LONG_TAIL_PER_CLASS = 50
"""Synthetic images that a class of a long tail gets, unless told otherwise: the rarest need most."""
_OF_A_SEED = ("expansion.seed", "learn.seed")


@dataclass(frozen=True, kw_only=True)
class Study:
    """What `evaluate` is asked to measure."""

    url: str
    """A folder, or any fsspec URL, that keeps results and the sets they were measured on."""
    questions: Questions
    arms: tuple[str, ...] = (REAL, "noise", "diff-ii")
    classifiers: tuple[str, ...] = ("scratch",)
    seeds: int = 5
    """How many seeds are reported: seed k is draw k, concepts k, generation k and training k."""
    first_seed: int = 0
    """The first of them."""
    trainings: int = 1
    """Networks per arm and seed, whose figures are averaged: a small network that starts from nothing differs by points
    from one training seed to the next."""
    tuning_seeds: int = 2
    """Seeds 1000, 1001, ... on which p and learning rate are chosen; 0 chooses nothing and takes the usual ones."""
    p: float | None = None
    """Fixes the mixing probability, so that it is not chosen."""
    lr: float | None = None
    """Fixes the learning rate."""
    config: Config = field(default_factory=Config)
    """How sets are made; what belongs to task, arm and seed is filled in."""

    def __post_init__(self) -> None:
        for arm in self.arms:
            if arm not in NAMES:
                raise ConfigError(f"--arms {arm}: there are {', '.join(NAMES)}")
        if not self.arms or not self.classifiers:
            raise ConfigError("a study has at least one arm and one classifier")
        if self.trainings < 1:
            raise ConfigError("--trainings must be 1 or more")
        if self.seeds < 1 or self.first_seed < 0 or self.tuning_seeds < 0:
            raise ConfigError("--seeds must be 1 or more, --first-seed and --tuning-seeds 0 or more")
        if max(self.reported) >= TUNING_SEED and (self.tuning_seeds or not self.exploring):
            raise ConfigError(
                f"seeds from {TUNING_SEED} on are for choosing settings, so they cannot be reported: give lower ones, "
                f"or explore with --first-seed {TUNING_SEED} --tuning-seeds 0"
            )
        if self.p is not None and not 0 <= self.p <= 1:
            raise ConfigError(f"--p {self.p}: a probability lies in [0, 1]")
        if self.lr is not None and self.lr <= 0:
            raise ConfigError(f"--lr {self.lr}: must be above 0")

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(arm, classifier), each that there can be: CutMix pastes pixels, and lite0 sees features alone."""
        every = product(self.arms, self.classifiers)
        return [pair for pair in every if pair != (CUTMIX, LITE0)]

    @property
    def exploring(self) -> bool:
        """Are settings compared on the draws, and measured on the images, that settings are chosen on?"""
        return self.first_seed >= TUNING_SEED

    @property
    def reported(self) -> range:
        return range(self.first_seed, self.first_seed + self.seeds)

    def config_of(self, task: Task, arm: str, source: str, output: str) -> Config:
        """How the set of a task and arm is made: the study's settings with the seed's own."""
        given = explicit_keys(self.config)
        values: dict[str, Any] = {**self._unmarked, "source.url": source, "output.url": output, "arm.name": arm}
        values |= dict.fromkeys(_OF_A_SEED, task.seed)
        values |= {} if "prompts.metaclass" in given else {"prompts.metaclass": task.metaclass}
        if task.imbalance is not None and not {"expansion.factor", "expansion.per_class", "expansion.target"} & set(
            given
        ):
            values["expansion.per_class"] = LONG_TAIL_PER_CLASS
        return with_values(self.config, values)

    def set_settings(self, arm: str) -> str:
        """Names how an arm's sets are made, whatever the seed; "" for an arm without sets."""
        if arm not in ARMS:
            return ""
        config = with_values(self.config, {**self._unmarked, "arm.name": arm})
        # As resolved: what `auto` and a preset mean may differ from one version to the next, and so may how a row's
        # beginning is stored.
        config = resolve(config, draw(self.questions, self.first_seed).classes)
        chosen = {**config.identity(), **{key: config.flat()[key] for key in sorted(GROWABLE)}}
        chosen |= {"learn.concepts": config.learn.concepts, LATENTS: LATENTS_STORED}
        return digest({key: value for key, value in chosen.items() if key not in _OF_A_SEED})[:8]

    @property
    def _unmarked(self) -> dict[str, Any]:
        """A study's sets are its own and not passed on; marked ones would have to be made, and measured, again."""
        return {} if "output.mark" in explicit_keys(self.config) else {"output.mark": False}

    def settings(self, arm: str) -> str:
        """Names all that makes a figure of an arm differ from another's of the same task and seed.

        Two sets of one's own images may have one name, and one may change: what they hold counts, too.
        """
        fixed = {key: value for key, value in (("p", self.p), ("lr", self.lr)) if value is not None}
        return digest(self.set_settings(arm), fixed, self.tuning_seeds, self.trainings, *own_images(self.questions))[:8]

    def probabilities(self, arm: str) -> tuple[float, ...]:
        """What is tried for p."""
        if arm == REAL:
            return (0.0,)
        if self.p is not None:
            return (self.p,)
        if not self.tuning_seeds:
            return (USUAL_PROBABILITY,)
        return (0.5, 1.0) if arm in BLENDS else PROBABILITIES

    def learning_rates(self, tried: tuple[float, ...]) -> tuple[float, ...]:
        """What is tried for the learning rate, of what the classifier proposes."""
        if self.lr is not None:
            return (self.lr,)
        return tried if self.tuning_seeds else (tried[len(tried) // 2],)
