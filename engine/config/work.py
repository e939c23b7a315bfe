"""Settings of the work: how much is made, what is thrown away, and who does it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from engine.config.group import Group

FACTOR, BALANCED = "factor", "balanced"


class ExpansionConfig(Group):
    factor: Annotated[float, Field(gt=0, le=100_000)] = 5.0
    """Synthetic images per real image of a class."""
    per_class: Annotated[int, Field(ge=1)] | None = None
    """Synthetic images per class, whatever its size; takes the place of factor."""
    target: Literal["factor", "balanced"] | int = FACTOR
    """How many images a class ends with. `factor`: each class grows by the factor above. `balanced`, for a long tail:
    the largest class grows by it, and every other to the same total. A number: so many in all, real ones counted."""
    max_attempts: Annotated[float, Field(ge=1.0, le=100.0)] = 2.0
    """Rows made per row wanted, at most: where rows are rejected, others take their place up to this."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Everything random follows from it."""

    @field_validator("target", mode="before")
    @classmethod
    def _target_is_a_word_or_a_number(cls, value: Any) -> Any:
        # The command line brings text, because the default is text.
        number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
        if number in (FACTOR, BALANCED) or (isinstance(number, int) and not isinstance(number, bool) and number >= 1):
            return number
        raise ValueError(f"must be `{FACTOR}`, `{BALANCED}` or a number of images per class, 1 or more")

    @model_validator(mode="after")
    def _one_target(self) -> ExpansionConfig:
        if self.per_class is not None and self.target != FACTOR:
            raise ValueError(
                f"expansion.per_class={self.per_class}: says how many synthetic images a class gets, and so does "
                f"expansion.target={self.target}; give one of the two"
            )
        return self


class DedupConfig(Group):
    embedder: str = "lite0"
    """What near-copies are recognised by: `lite0` (offline), a transformers vision model by hub id or path, or `off`,
    which keeps them all."""
    hash_radius: Annotated[int, Field(ge=0, le=64)] = 4
    """Bits in which two perceptual hashes may differ to propose a copy."""
    alone: Annotated[float, Field(ge=0.0, le=10.0)] = 0.175
    """A copy by its embedding alone: share of the median distance between real neighbours of the class."""
    with_hash: Annotated[float, Field(ge=0.0, le=10.0)] = 0.3
    """The same where the hash proposes."""
    holdout: str = ""
    """Images kept apart for testing, in any form of `source.url`: a report then says which synthetic and which real
    training images are exact copies or near-copies of one of them. It rejects nothing."""


class ActorsConfig(Group):
    min: Annotated[int, Field(ge=1)] = 1
    """Actors that a run starts with at least."""
    max: Annotated[int, Field(ge=1)] | None = None
    """Actors at most; by default one per GPU, or one per core without a GPU."""
    gpus: Annotated[float, Field(ge=0.0, le=64.0)] | None = None
    """GPUs per actor, a fraction allowed; by default 1 where there are GPUs, else 0."""
    spot_notices: bool = True
    """Ask the metadata service of AWS, GCP or Azure whether the machine is about to be taken back, and let its Ray node
    be drained then. Where none answers nothing is asked again."""
    allow_smaller_batch: bool = False
    """While generating, a card on which `generation.micro_batch` does not fit takes half of it, and again half, instead
    of ending the run. Each row is still there once, but not to the same bit on other cards."""

    @model_validator(mode="after")
    def _max_is_not_below_min(self) -> ActorsConfig:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"actors.max={self.max}: must be at least actors.min ({self.min})")
        return self


class EngineConfig(Group):
    stall_timeout: Annotated[float, Field(ge=1.0, le=86_400.0)] = 900.0
    """Seconds without an answer of the model after which an actor counts as hung and is ended."""
    attempts: Annotated[int, Field(ge=2, le=20)] = 4
    """Processes that must have died over a row before it is given up as poisoned."""
    probe: Literal["auto", "on", "off"] = "auto"
    """Measure, before a new run is planned, how many rows of a model call fit and are fastest, and keep to it; `auto`:
    on a GPU. Of a key that is set, `generation.micro_batch` or `inversion.micro_batch`, nothing is measured."""


class CommitConfig(Group):
    chunk_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Rows per unit of work, retry and staging."""
