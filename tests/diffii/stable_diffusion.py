"""Stable Diffusion 1.5 without its weights: the exact architecture, randomly filled, in the hub's layout.

What a test or a benchmark needs of the real model is its shapes, its file names and its settings; those are here.
A small sister of the same anatomy serves where a second must do.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

_Model = TypeVar("_Model", bound=torch.nn.Module)

MAX_TOKENS = 77
BOS, EOS = "<|startoftext|>", "<|endoftext|>"

PARAMETERS = {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}
"""How many parameters the published Stable Diffusion 1.5 has: the proof that `STABLE_DIFFUSION_1_5` is its shape."""


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """The few numbers in which two Stable Diffusions differ; everything else is the same for both."""

    unet_channels: tuple[int, ...]
    vae_channels: tuple[int, ...]
    latent_size: int
    """Height and width of a latent; an image is 2^(len(vae_channels) - 1) times that."""
    heads: int
    """What diffusers calls `attention_head_dim` in these models: the NUMBER of heads."""
    groups: int
    """Groups of every group norm."""
    text: dict[str, Any] = field(default_factory=dict)
    """What the two text encoders differ in."""


STABLE_DIFFUSION_1_5 = Anatomy(
    unet_channels=(320, 640, 1280, 1280),
    vae_channels=(128, 256, 512, 512),
    latent_size=64,
    heads=8,
    groups=32,
    text={"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
)
SMALL = Anatomy(
    unet_channels=(16, 32),
    vae_channels=(8, 16),
    latent_size=8,
    heads=2,
    groups=4,
    text={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
)

# The scheduler file of Stable Diffusion 1.5 as it is on the hub; `clip_sample` is no setting of PNDM, yet it is there.
_SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "trained_betas": None,
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "clip_sample": False,
}


def build(
    directory: Path,
    anatomy: Anatomy = STABLE_DIFFUSION_1_5,
    *,
    prediction: str = "epsilon",
    dtype: torch.dtype = torch.float16,
    seed: int = 0,
    scheduler: dict[str, Any] | None = None,
) -> Path:
    """Write a pipeline to `directory` as the hub has it and return that path; 2.1 GB at full size in float16.

    prediction `epsilon` comes with PNDM, as 1.5 does; `v_prediction` with DDIM, as 2.1 does. `scheduler` overrides
    single settings of the scheduler's file.
    """
    kind: Any = PNDMScheduler if prediction == "epsilon" else DDIMScheduler
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = StableDiffusionPipeline(
            vae=_cast(_autoencoder(anatomy), dtype),
            text_encoder=_cast(_text_encoder(anatomy), dtype),
            tokenizer=_tokenizer(),
            unet=_cast(_denoiser(anatomy), dtype),
            scheduler=kind.from_config({**_SCHEDULER, "prediction_type": prediction, **(scheduler or {})}),
            safety_checker=None,  # pyright: ignore[reportArgumentType]
            feature_extractor=None,  # pyright: ignore[reportArgumentType]
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(directory, safe_serialization=True)
    _rename_as_published(directory)
    return directory


def attention_projections(directory: Path) -> dict[str, tuple[int, int]]:
    """Every projection of every attention of the U-Net in `directory`: module path -> (outputs, inputs)."""
    with torch.device("meta"):
        unet = cast(Any, UNet2DConditionModel).from_config(UNet2DConditionModel.load_config(directory / "unet"))
    return {
        name: (module.out_features, module.in_features)
        for name, module in unet.named_modules()
        if isinstance(module, torch.nn.Linear) and _PROJECTION.fullmatch(name)
    }


_PROJECTION = re.compile(r"(?P<attention>.+\.attn[12])\.(?P<projection>to_q|to_k|to_v|to_out)(\.0)?")


def write_attn_procs_lora(
    path: Path, directory: Path, *, rank: int = 4, prefix: str = "unet.", scale: float = 0.05, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Write a LoRA for the U-Net in `directory` in the old attention-processor layout; returns what it adds.

    The keys read `{prefix}{block}.attn1.processor.to_q_lora.down.weight`. Training scripts wrote them with the prefix
    `unet.` (`save_lora_weights`) or without any (`unet.save_attn_procs`). The answer maps each module's path to the
    matrix (outputs, inputs), float32, by which its weight must grow: up times down.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    added: dict[str, torch.Tensor] = {}
    for name, (outputs, inputs) in attention_projections(directory).items():
        part = cast(re.Match[str], _PROJECTION.fullmatch(name))
        key = f"{prefix}{part['attention']}.processor.{part['projection']}_lora"
        tensors[f"{key}.down.weight"] = torch.randn(rank, inputs, generator=generator) * scale
        tensors[f"{key}.up.weight"] = torch.randn(outputs, rank, generator=generator) * scale
        added[name] = tensors[f"{key}.up.weight"] @ tensors[f"{key}.down.weight"]
    save_file(tensors, path)
    return added


def published_name(part: str, name: str) -> str:
    """What the hub's file of `part` calls the parameter that today's class calls `name`.

    The files of 1.5 are older than the libraries that read them: loading one is a translation, and worth a test.
    """
    if part == "text_encoder" and not name.startswith("text_model."):
        return f"text_model.{name}"
    if part == "vae" and ".attentions." in name:
        for today, then in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(f".{today}.", f".{then}.")
    return name


def _rename_as_published(directory: Path) -> None:
    for part, file in (("text_encoder", "model"), ("vae", "diffusion_pytorch_model")):
        path = directory / part / f"{file}.safetensors"
        tensors = {published_name(part, name): tensor for name, tensor in load_file(path).items()}
        path.unlink()  # it may still be mapped
        save_file(tensors, path, metadata={"format": "pt"})
    tokenizer = directory / "tokenizer"
    (tokenizer / "tokenizer.json").unlink()
    (tokenizer / "vocab.json").write_text(json.dumps(_vocabulary(), ensure_ascii=False), encoding="utf-8")
    (tokenizer / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")


def _cast(model: _Model, dtype: torch.dtype) -> _Model:
    # Not `model.to`: diffusers' own warns about modules to be kept in float32, of which these models have none.
    return cast(_Model, torch.nn.Module.to(model, dtype))


def _denoiser(anatomy: Anatomy) -> UNet2DConditionModel:
    deeper = len(anatomy.unet_channels) - 1
    return UNet2DConditionModel(
        sample_size=anatomy.latent_size,
        in_channels=4,
        out_channels=4,
        layers_per_block=2,
        block_out_channels=anatomy.unet_channels,
        down_block_types=("CrossAttnDownBlock2D",) * deeper + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * deeper,
        attention_head_dim=anatomy.heads,
        cross_attention_dim=anatomy.text["hidden_size"],
        norm_num_groups=anatomy.groups,
    )


def _autoencoder(anatomy: Anatomy) -> AutoencoderKL:
    levels = len(anatomy.vae_channels)
    return cast(Any, AutoencoderKL)(
        sample_size=anatomy.latent_size * 2 ** (levels - 1),
        latent_channels=4,
        layers_per_block=2,
        block_out_channels=anatomy.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        norm_num_groups=anatomy.groups,
        scaling_factor=0.18215,
    )


def _text_encoder(anatomy: Anatomy) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            max_position_embeddings=MAX_TOKENS,
            hidden_act="quick_gelu",
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
            **anatomy.text,
        )
    )


def _tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer(vocab=_vocabulary(), merges=[], model_max_length=MAX_TOKENS)  # pyright: ignore[reportCallIssue]


def _vocabulary() -> dict[str, int]:
    """Every text is its bytes: no word list is needed where the weights know no words."""
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), BOS, EOS]
    return {token: index for index, token in enumerate(tokens)}
