"""The one configuration of a run: every key, its range, its default, and whether it may change later.

Keys are dotted, `group.name`. YAML files, `--set key=value` and the Python API all end in `Config`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from diffii.circle import Norm
from diffii.kinds import Attention, DTypeName

AUTO, OFF = "auto", "off"
Count = Annotated[int, Field(ge=1)]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, coerce_numbers_to_str=True)


class SourceConfig(_Group):
    url: str = ""
    """Labelled images: a folder of class folders, a Parquet file, or a folder of Parquet files; any fsspec URL."""


class OutputConfig(_Group):
    url: str = ""
    """Where the expanded data set is written; any fsspec URL."""
    format: Literal["parquet"] = "parquet"
    """Shard format."""
    encoding: Literal["png", "webp", "jpeg"] = "png"
    """How images are stored: png and webp are lossless, jpeg has quality 95."""
    shard_rows: Count = 1000
    """A shard is published once this many kept rows are decided."""


class PromptsConfig(_Group):
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


class BackboneConfig(_Group):
    model: str = AUTO
    """A hub id, a directory, or `garments` (the small embedded model). `auto`: the embedded model when every class
    is one of the embedded data set's, else Stable Diffusion 1.5."""
    dtype: DTypeName = "auto"
    """Arithmetic of the model: auto is fp16 on CUDA and fp32 on the CPU."""
    attention: Attention = "auto"
    """Attention kernel: auto is xformers on CUDA if it answers a probe, else PyTorch's own."""


class InversionConfig(_Group):
    preset: Literal["matched", "reference"] = "matched"
    """`reference`: 200 steps on the leading grid, as the published code does, for sampling too."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 50
    """DDIM steps from an image to its inversion."""
    norm: Norm = "sqrt_d"
    """Length of a circle point: that of its parents, or sqrt(D) as Gaussian noise has. Inversions come out shorter than
    noise (0.85 of it on the embedded model), and sampling from their length gave fewer images of the right class."""
    micro_batch: Count = 16
    """Rows of every model call while inverting."""


class GenerationConfig(_Group):
    steps: Annotated[int, Field(ge=1, le=1000)] = 25
    """DDIM steps from a circle point to an image."""
    guidance_scale: Annotated[float, Field(ge=1.0, le=50.0)] = 7.5
    """Classifier-free guidance; 1 is none and halves the model's work."""
    split: Annotated[float, Field(ge=0.0, le=1.0)] = 0.3
    """Fraction of the path, counted from the noise end, whose prompt has the suffix."""
    micro_batch: Count = 16
    """Images of every model call while generating (twice as many rows under guidance)."""


class ExpansionConfig(_Group):
    factor: Annotated[float, Field(gt=0, le=100_000)] = 5.0
    """Synthetic images per real image of a class."""
    per_class: Annotated[int, Field(ge=1)] | None = None
    """Synthetic images per class, whatever its size; takes the place of factor."""
    max_attempts: Annotated[float, Field(ge=1.0, le=100.0)] = 2.0
    """Rows made per row wanted, at most: where rows are rejected, others take their place up to this."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Everything random follows from it."""


class DedupConfig(_Group):
    embedder: str = OFF
    """What near-copies are recognised by: `lite0` (offline, the extra `dedup`), a transformers vision model by hub id
    or path, or `off`, which keeps them all."""
    hash_radius: Annotated[int, Field(ge=0, le=64)] = 4
    """Bits in which two perceptual hashes may differ to propose a copy."""
    alone: Annotated[float, Field(ge=0.0, le=10.0)] = 0.175
    """A copy by its embedding alone: share of the median distance between real neighbours of the class."""
    with_hash: Annotated[float, Field(ge=0.0, le=10.0)] = 0.3
    """The same where the hash proposes."""


class ActorsConfig(_Group):
    min: Annotated[int, Field(ge=1)] = 1
    """Actors that a run starts with at least."""
    max: Annotated[int, Field(ge=1)] | None = None
    """Actors at most; by default one per GPU, or one per core without a GPU."""
    gpus: Annotated[float, Field(ge=0.0, le=64.0)] | None = None
    """GPUs per actor, a fraction allowed; by default 1 where there are GPUs, else 0."""


class EngineConfig(_Group):
    stall_timeout: Annotated[float, Field(ge=1.0, le=86_400.0)] = 900.0
    """Seconds without an answer of the model after which an actor counts as hung and is ended."""
    attempts: Annotated[int, Field(ge=2, le=20)] = 4
    """Processes that must have died over a row before it is given up as poisoned."""


class CommitConfig(_Group):
    chunk_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Rows per unit of work, retry and staging."""


class Config(_Group):
    """A whole run."""

    source: SourceConfig = SourceConfig()
    output: OutputConfig = OutputConfig()
    prompts: PromptsConfig = PromptsConfig()
    backbone: BackboneConfig = BackboneConfig()
    inversion: InversionConfig = InversionConfig()
    generation: GenerationConfig = GenerationConfig()
    expansion: ExpansionConfig = ExpansionConfig()
    dedup: DedupConfig = DedupConfig()
    actors: ActorsConfig = ActorsConfig()
    engine: EngineConfig = EngineConfig()
    commit: CommitConfig = CommitConfig()

    def flat(self) -> dict[str, Any]:
        """Dotted key -> plain value, in the order of declaration."""
        return {f"{group}.{key}": value for group, keys in self.model_dump().items() for key, value in keys.items()}

    def identity(self) -> dict[str, Any]:
        """The settings that may never change once a run has begun (law 4)."""
        return {key: value for key, value in self.flat().items() if key not in GROWABLE | OPERATIONAL}


GROWABLE = frozenset({"expansion.factor", "expansion.per_class", "expansion.max_attempts"})
"""May change upwards: more rows of the same plan."""
OPERATIONAL = frozenset(
    {"source.url", "output.url", "backbone.model", "actors.min", "actors.max", "actors.gpus"}
    | {"engine.stall_timeout", "engine.attempts"}
)
"""Free: no byte depends on them. Source and model are identified by what they hold, not by where they lie."""
