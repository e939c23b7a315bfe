"""Settings of the method: the model, what it learns, and the ways up to noise and down to images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from diffii.arms import ARMS, DIFF_II
from diffii.circle import Norm
from diffii.kinds import Attention, DTypeName, Solver
from engine.config.group import AUTO, Count, Group


class LearnConfig(Group):
    """How concepts are learned: tokens per class and one LoRA."""

    concepts: str = AUTO
    """`auto`: learned on the source; `off`: classes are named by words; else the URL of concepts: a folder that diffii,
    Diff-Mix or Diff-II wrote, or a textual-inversion file."""
    preset: Literal["auto", "quick", "paper", "garments"] = "auto"
    """`quick`: some 2000 steps of 8; `paper`: the published 35 000 of 2; `auto`: quick, or the embedded model's own."""
    steps: Count | None = None
    """Steps at most; the preset's if not given, as with all keys below."""
    batch: Count | None = None
    """Rows per step."""
    micro_batch: Count | None = None
    """Rows per call of the model: lower where memory is short. What is learned differs by rounding alone."""
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
    workers: Count | None = None
    """Processes that learn together, at most one for each call of the model in a step. If not given: on GPUs one, else
    one a core. What is learned does not depend on it."""


class BackboneConfig(Group):
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


class InversionConfig(Group):
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


class GenerationConfig(Group):
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


class ArmConfig(Group):
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


def _without(values: dict[str, Any], unsaid: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in unsaid or value != unsaid[key]}
