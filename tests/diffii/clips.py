"""A CLIP without its weights, saved as the hub has them."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip import CLIPImageProcessorPil, CLIPProcessor

from diffii.weights import EMBEDDED_DIR


def tiny_clip(folder: Path) -> Path:
    """Small, filled at random, with the embedded model's tokenizer."""
    tokenizer = CLIPTokenizer.from_pretrained(EMBEDDED_DIR / "tokenizer")
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    text = {**shape, "vocab_size": len(tokenizer), "max_position_embeddings": 16}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CLIPConfig(
        text_config={**text, **ends, "pad_token_id": tokenizer.pad_token_id},
        vision_config={**shape, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder
