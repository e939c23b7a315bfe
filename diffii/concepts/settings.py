"""How concepts are learned: every setting, and the presets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Schedule = Literal["constant", "cosine"]
_AT_LEAST_1 = ("steps", "batch", "micro_batch", "tokens", "check_every", "check_rows")
_AT_LEAST_0 = ("rank", "warmup", "patience", "checkpoint_every", "clip", "weight_decay", "min_gain", "seed", "skew")


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnSettings:
    """Defaults are the preset `quick`. Raises ValueError naming the setting that is out of range."""

    steps: int = 2_000
    """Optimiser steps, unless the loss stops falling before."""
    batch: int = 8
    """Rows per step."""
    micro_batch: int = 4
    """Rows per call of the model, at most: how many fit into the memory, and how finely a step can be dealt out to
    workers. What is learned differs by rounding alone."""
    tokens: int = 1
    """Learned tokens per class."""
    rank: int = 10
    """Rank of the shared LoRA; 0 learns tokens alone."""
    token_lr: float = 5e-4
    """AdamW's rate for the tokens; they have no weight decay, which would pull them to zero."""
    lora_lr: float = 1e-4
    """AdamW's rate for the LoRA."""
    weight_decay: float = 1e-2
    """Of the LoRA."""
    schedule: Schedule = "cosine"
    """Both rates over the run: constant, or falling to zero along half a cosine."""
    warmup: int = 50
    """Steps in which both rates rise from zero."""
    clip: float = 1.0
    """Largest norm of all gradients together; 0 is no limit."""
    balanced: bool = True
    """Every class equally often, however many images it has; false: every image equally often."""
    flip: bool = True
    """Also learn from the mirrored images."""
    skew: float = 0.0
    """Timesteps are drawn with a density that grows as t^skew: 0 is the paper's even one. Above 0 the noisy ones, which
    decide what is seen and not how fine, come more often."""
    ema: float = 0.0
    """Keep a moving average of what is learned, with this memory, and give it as the result; 0 does not."""
    check_every: int = 100
    """Steps between two looks at the loss on fixed draws of noise that are never learned from."""
    check_rows: int = 64
    """How many such draws."""
    patience: int = 5
    """Stop when so many looks in a row gained nothing; 0 never stops early."""
    min_gain: float = 1e-3
    """The relative gain that counts."""
    checkpoint_every: int = 100
    """Steps between two checkpoints; 0 writes none."""
    seed: int = 0

    def __post_init__(self) -> None:
        for names, low in ((_AT_LEAST_1, 1), (_AT_LEAST_0, 0)):
            for name in names:
                if getattr(self, name) < low:
                    raise ValueError(f"learn.{name} must be at least {low}, got {getattr(self, name)}")
        for name in ("token_lr", "lora_lr"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"learn.{name} must lie between 0 and 1, got {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"learn.ema must be at least 0 and below 1, got {self.ema}")

    @property
    def parts(self) -> int:
        """Calls of the model in a step: more workers have nothing to do."""
        return -(-self.batch // self.micro_batch)

    def rate(self, step: int) -> float:
        """The factor of both learning rates at `step`, counted from 0."""
        import math

        rising = min(1.0, (step + 1) / (self.warmup + 1))
        falling = 0.5 + 0.5 * math.cos(math.pi * step / self.steps) if self.schedule == "cosine" else 1.0
        return rising * falling

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


QUICK = LearnSettings()
PAPER = LearnSettings(
    steps=35_000, batch=2, rank=10, token_lr=5e-5, lora_lr=5e-5, weight_decay=1e-2, schedule="constant", warmup=0,
    patience=0, check_every=500, checkpoint_every=500,
)  # fmt: skip
"""The published settings, without the weight decay on tokens that theirs has."""
GARMENTS = LearnSettings(
    steps=400, batch=16, tokens=2, rank=8, token_lr=5e-2, lora_lr=1e-2, warmup=10, skew=2.0, flip=False,
    check_every=100, patience=0, checkpoint_every=100,
)  # fmt: skip
"""For the embedded model: three minutes on two cores, whatever the number of images. All its shoes point left, so
nothing is mirrored; at 32 px what is seen is decided while there is much noise."""
PRESETS = {"quick": QUICK, "paper": PAPER, "garments": GARMENTS}
