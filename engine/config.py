"""The one configuration of a run: every key, its range, its default, and whether it may change later.

Keys are dotted, `group.name`. YAML files, `--set key=value` and the Python API all end in `Config`.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from diffii.arms import ARMS, DIFF_II
from diffii.circle import Norm
from diffii.images import MAX_BYTES, MAX_PIXELS, PILLOW_PIXELS, Fit
from diffii.kinds import Attention, DTypeName, Solver

AUTO, OFF = "auto", "off"
DIFFUSION, OWN = "diffusion", "source"
FACTOR, BALANCED = "factor", "balanced"
PARQUET = "parquet"
Count = Annotated[int, Field(ge=1)]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, coerce_numbers_to_str=True)


class SourceConfig(_Group):
    url: str = ""
    """Labelled images: a folder of class folders; Parquet, or a directory of Hugging Face `datasets`; WebDataset tars;
    a CSV, TSV, JSON lines or Parquet list of paths; a data set of the hub, `owner/name`. A path or any fsspec URL."""
    license: str = ""
    """Licence of the images, for the card; by default what a README.md beside them says."""
    images: str = ""
    """What the paths of a list lie below, if that is not the list's own folder: a folder or the beginning of URLs."""
    split: str = ""
    """The split that is expanded; by default `train` where there is one, else everything."""
    holdout_split: str = ""
    """A split that is never expanded, nor any copy of an image in it. The leak report is about it if `dedup.holdout`
    names nothing else."""
    fit: Fit = "crop"
    """How an image becomes square: `crop` cuts the middle, `pad` adds white, `stretch` does not keep the aspect, as the
    published code does (for `inversion.preset=reference`)."""
    max_pixels: Annotated[int, Field(ge=1, le=PILLOW_PIXELS)] = MAX_PIXELS
    """An image that claims more is skipped before it is decoded."""
    max_bytes: Count = MAX_BYTES
    """A larger file is skipped."""
    min_edge: Count = 1
    """An image whose shorter edge has fewer pixels is skipped."""

    @model_validator(mode="after")
    def _splits_differ(self) -> SourceConfig:
        if self.split and self.split == self.holdout_split:
            raise ValueError(f"source.split={self.split}: is source.holdout_split too; a split is one or the other")
        return self


class OutputConfig(_Group):
    url: str = ""
    """Where the expanded data set is written; any fsspec URL."""
    format: list[Literal["parquet", "webdataset", "mds", "imagefolder"]] = Field(default=[PARQUET])
    """Parquet, which every run writes; and further formats, each kept up in a folder of its name beside it."""
    include_real: bool = False
    """Put the real images in too, apart from the synthetic ones: in `real/`, their rows with `is_synthetic` false."""
    encoding: Literal["png", "webp", "jpeg"] = "png"
    """How images are stored. png and webp are lossless, jpeg has quality 95, unless `quality` says otherwise."""
    quality: Annotated[int, Field(ge=1, le=100)] | None = None
    """Quality of jpeg; or of webp, which then is no longer lossless."""
    mark: bool = True
    """Each image's own metadata say that a model made it (IPTC digital source type, in XMP)."""
    shard_rows: Count = 1000
    """A shard is published once this many kept rows are decided."""

    @field_validator("format", mode="before")
    @classmethod
    def _parquet_and_others(cls, value: Any) -> Any:
        named = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
        return list(dict.fromkeys([PARQUET, *named])) if isinstance(named, (list, tuple)) else named

    @model_validator(mode="after")
    def _png_has_no_quality(self) -> OutputConfig:
        if self.encoding == "png" and self.quality is not None:
            raise ValueError(
                f"output.quality={self.quality}: png is lossless and has none; set output.encoding to webp or jpeg"
            )
        return self


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


class CaptionsConfig(_Group):
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


class LearnConfig(_Group):
    """How concepts are learned: tokens per class and one LoRA."""

    concepts: str = AUTO
    """`auto`: learned on the source; `off`: classes are named by words; else the URL of concepts: a folder that diffii,
    Diff-Mix or Diff-II wrote, or a textual-inversion file."""
    preset: Literal["auto", "quick", "paper", "garments"] = "auto"
    """`quick`: some 2000 steps of 8; `paper`: the published 35 000 of 2; `auto`: quick, or the embedded model's own."""
    steps: Count | None = None
    """Steps at most; the preset's if not given, as with all keys below."""
    batch: Count | None = None
    """Rows per step and worker."""
    tokens: Annotated[int, Field(ge=1, le=64)] | None = None
    """Learned tokens per class."""
    rank: Annotated[int, Field(ge=0, le=512)] | None = None
    """Rank of the LoRA; 0 learns tokens alone."""
    token_lr: float | None = None
    """Learning rate of the tokens."""
    lora_lr: float | None = None
    """Learning rate of the LoRA."""
    ema: float | None = None
    """Memory of a moving average of what is learned; 0 is none."""
    flip: bool | None = None
    """Also learn from mirrored images."""
    balanced: bool | None = None
    """Every class equally often."""
    patience: Annotated[int, Field(ge=0)] | None = None
    """Looks at the held-out loss without a gain after which learning stops; 0 never stops early."""
    contexts: bool = True
    """Learn under prompts that name each image's context, where captions tell it."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of batches, noise and timesteps."""
    workers: Count = 1
    """Processes that learn together, each on a GPU if there is one."""


class BackboneConfig(_Group):
    model: str = AUTO
    """A hub id, a directory, a URL (copied once to each machine), or `garments` (the small embedded model). `auto`: the
    embedded model when every class is one of the embedded data set's, else Stable Diffusion 1.5."""
    license: str = ""
    """Licence of the model, for the card; by default what its own card says."""
    dtype: DTypeName = "auto"
    """Arithmetic of the model: auto is fp16 on CUDA and fp32 on the CPU."""
    attention: Attention = "auto"
    """Attention kernel: auto is xformers on CUDA if it answers a probe, else PyTorch's own."""
    compile: bool = False
    """Run the U-Net through torch.compile: faster after a minute or more of compiling, once per machine. It needs a
    compiler there."""


class InversionConfig(_Group):
    preset: Literal["matched", "fast", "reference"] = "matched"
    """`reference`: 200 steps on the leading grid, as the published code does, for sampling too. That code also
    stretches images: `source.fit=stretch`. `fast`: fewer and cheaper steps, for sampling too."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 50
    """Steps from an image to its inversion."""
    solver: Solver = "ddim"
    """How a step is taken: `ddim`, or `dpm++` (DPM-Solver++ 2M), which needs fewer of them."""
    diffuse: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.04
    """Share of the noise path, from the image on, that is diffused forwards instead of inverted; 0 inverts all of it.
    It makes inversions as long and as white as noise, and images of the right class more frequent."""
    norm: Norm = "sqrt_d"
    """Length of a circle point: that of its parents, or sqrt(D) as Gaussian noise has. Inversions come out shorter than
    noise (0.85 of it on the embedded model), and sampling from their length gave fewer images of the right class."""
    micro_batch: Count = 16
    """Rows of every model call while inverting. Measured on a GPU as `generation.micro_batch` is."""

    def named(self) -> dict[str, Any]:
        """The settings as recipes name them: what is as before it could be set is not named."""
        return _without(self.model_dump(), {"diffuse": 0.0, "solver": "ddim"})


class GenerationConfig(_Group):
    steps: Annotated[int, Field(ge=1, le=1000)] = 25
    """Steps from a circle point to an image."""
    solver: Solver = "ddim"
    """As for inversion."""
    guidance_scale: Annotated[float, Field(ge=1.0, le=50.0)] = 7.5
    """Classifier-free guidance; 1 is none and halves the model's work."""
    guidance_interval: list[Annotated[float, Field(ge=0.0, le=1.0)]] = Field(default=[0.0, 1.0])
    """Shares of the path, counted from the noise end, between which there is guidance; other steps cost half."""
    split: Annotated[float, Field(ge=0.0, le=1.0)] = 0.3
    """Fraction of the path, counted from the noise end, whose prompt has the suffix."""
    micro_batch: Count = 16
    """Images of every model call while generating (twice as many rows under guidance). A run that is begun on a GPU
    measures what is best there, unless this is set (`engine.probe`)."""

    @field_validator("guidance_interval")
    @classmethod
    def _interval_has_two_ends(cls, value: list[float]) -> list[float]:
        if len(value) != 2 or value[0] >= value[1]:
            raise ValueError("must be two shares of the path, the smaller one first, such as [0.2, 0.8]")
        return value

    def named(self) -> dict[str, Any]:
        """The settings as recipes name them: what is as before it could be set is not named."""
        return _without(self.model_dump(), {"solver": "ddim", "guidance_interval": [0.0, 1.0]})


class ArmConfig(_Group):
    """How rows begin (`diffii.arms`)."""

    name: str = DIFF_II
    """`diff-ii`; or what it is measured against: `noise`, `slerp`, `circle`, `diff-aug`, `diff-mix`."""
    strength: list[Annotated[float, Field(gt=0.0, le=1.0)]] = Field(default=[0.5, 0.7, 0.9], min_length=1)
    """For diff-aug and diff-mix: shares of the noise path that are denoised anew, taken in turn."""
    gamma: Annotated[float, Field(ge=0.0, le=10.0)] = 0.5
    """For diff-mix: strength to this power is the weight of the class that an image is edited towards."""

    @field_validator("name")
    @classmethod
    def _name_is_known(cls, value: str) -> str:
        if value not in ARMS:
            raise ValueError(f"must be one of {', '.join(ARMS)}")
        return value

    @field_validator("strength", mode="before")
    @classmethod
    def _one_strength_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, (int, float)) else value


class ExpansionConfig(_Group):
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


class DedupConfig(_Group):
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


class ActorsConfig(_Group):
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


class EngineConfig(_Group):
    stall_timeout: Annotated[float, Field(ge=1.0, le=86_400.0)] = 900.0
    """Seconds without an answer of the model after which an actor counts as hung and is ended."""
    attempts: Annotated[int, Field(ge=2, le=20)] = 4
    """Processes that must have died over a row before it is given up as poisoned."""
    probe: Literal["auto", "on", "off"] = "auto"
    """Measure, before a new run is planned, how many rows of a model call fit and are fastest, and keep to it; `auto`:
    on a GPU. Of a key that is set, `generation.micro_batch` or `inversion.micro_batch`, nothing is measured."""


class CommitConfig(_Group):
    chunk_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Rows per unit of work, retry and staging."""


class Config(_Group):
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


def _without(values: dict[str, Any], unsaid: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in unsaid or value != unsaid[key]}
