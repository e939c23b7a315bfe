"""The few words by which a model is asked for; apart from the code that needs torch, so that settings do not."""

from __future__ import annotations

from typing import Literal

Attention = Literal["auto", "xformers", "sdpa"]
DTypeName = Literal["auto", "fp16", "bf16", "fp32"]
Solver = Literal["ddim", "dpm++"]
