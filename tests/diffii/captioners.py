"""Image captioners without their weights: small, randomly filled, saved as the hub has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    GitConfig,
    GitForCausalLM,
    GPT2Config,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
)

EDGE = 32
_WORDS = "a photo of bird sitting on branch flying over water red car parked street the in tree"
WORDS = _WORDS.split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAD, CLS, SEP = 0, 2, 3
VOCABULARY = len(SPECIAL) + len(WORDS)
_SHAPE: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
_VISION = {**_SHAPE, "image_size": EDGE, "patch_size": 8}
_TEXT = {**_SHAPE, "vocab_size": VOCABULARY, "bos_token_id": CLS, "eos_token_id": SEP, "pad_token_id": PAD}


def blip(folder: Path, seed: int = 0) -> Path:
    text = {
        **_TEXT,
        "encoder_hidden_size": 32,
        "projection_dim": 16,
        "sep_token_id": SEP,
        "max_position_embeddings": 40,
    }
    return _save(
        lambda: BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=_VISION)), folder, seed
    )


def git(folder: Path, seed: int = 0) -> Path:
    config = GitConfig(vision_config=_VISION, max_position_embeddings=60, **_TEXT)
    return _save(lambda: GitForCausalLM(config), folder, seed)


def vit_gpt2(folder: Path, seed: int = 0) -> Path:
    decoder = GPT2Config(
        n_embd=32, n_layer=2, n_head=2, n_positions=40, vocab_size=VOCABULARY, bos_token_id=CLS, eos_token_id=SEP,
        add_cross_attention=True,
    )  # fmt: skip
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**_VISION), decoder)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = CLS, PAD, SEP
    return _save(lambda: VisionEncoderDecoderModel(config=config), folder, seed)


def _save(make: Any, folder: Path, seed: int) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        for name, parameter in model.named_parameters():
            # As they come, the weights are so small that every image gets the same words; so do large embeddings, which
            # are the outputs' too and make a word repeat itself.
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.02 if "embeddings" in name else 0.5)
    model.save_pretrained(folder)
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)  # pyright: ignore[reportCallIssue]
    settings = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": {"height": EDGE, "width": EDGE}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder
