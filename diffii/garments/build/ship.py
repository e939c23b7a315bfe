"""From a trained pipeline to what is committed: half precision, and the tokenizer in both of its layouts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline


def ship_model(trained: Path, out: Path) -> None:
    """Save fp16 safetensors; raises ValueError when the weights would not survive it."""
    pipeline = StableDiffusionPipeline.from_pretrained(trained, dtype=torch.float16, safety_checker=None)
    for name in ("unet", "vae", "text_encoder"):
        for key, value in getattr(pipeline, name).state_dict().items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise ValueError(f"{name}.{key} overflows half precision")
    for part in ("scheduler", "text_encoder", "tokenizer", "unet", "vae"):
        shutil.rmtree(out / part, ignore_errors=True)
    pipeline.save_pretrained(out)
    for path in out.rglob("*.json"):
        settings = json.loads(path.read_text(encoding="utf-8"))
        if settings.pop("_name_or_path", None):
            path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    # Tools written for the hub's older repositories look for these two beside tokenizer.json.
    model = json.loads((out / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (out / "tokenizer" / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    merges = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (out / "tokenizer" / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
