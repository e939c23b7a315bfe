"""One resident Stable Diffusion: loaded once, frozen, and called at whatever fixed shape the caller keeps to.

B batch   C latent channels   H, W latent height and width   T tokens   D text width
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from diffii.attention import use
from diffii.compiled import compiled
from diffii.concepts.record import Concepts
from diffii.concepts.tokens import TokenTable, prompt_ids
from diffii.errors import ModelError
from diffii.kinds import Attention, DTypeName
from diffii.lora import add_lora, fuse, lora_deltas, weight_of
from diffii.model_checks import one_line, refuse_incomplete, refuse_other_kinds, refuse_schedule
from diffii.schedule import Grid, Spacing, make_grid, to_epsilon
from diffii.weights import locate

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
CACHED_PROMPTS = 2_000
"""Embeddings kept: 2000 of SD-1.5's in float16 are 240 MB. Two thousand classes with ten suffixes would be 2.6 GB."""
DECODED_AT_ONCE = 8
"""Latents, at most, on a card."""


@dataclass(frozen=True)
class BackboneRecord:
    """What was loaded and on what: the part of a run's fingerprint that the model decides."""

    model: str
    device: str
    dtype: str
    attention: str
    attention_reason: str
    prediction: str
    image_size: int
    threads: int
    compiled: bool = False


class Backbone:
    """Stable Diffusion 1.x or 2.x, epsilon or v-prediction. Make one with `Backbone.load`."""

    def __init__(
        self,
        pipeline: Any,
        model: str,
        device: torch.device,
        dtype: torch.dtype,
        attention: Attention,
        compile_unet: bool = False,
    ):
        self.device, self.dtype = device, dtype
        self.pipeline = pipeline.to(device, dtype)
        for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
            part.eval().requires_grad_(False)
        kernel, reason = use(pipeline.unet, attention, device, dtype)
        if device.type == "cuda":
            # What tensor cores read; convolutions would turn every tensor around otherwise. A CPU is no faster so.
            for part in (pipeline.unet, pipeline.vae):
                part.to(memory_format=torch.channels_last)
        self._unet = compiled(pipeline.unet, device) if compile_unet else pipeline.unet
        settings = pipeline.scheduler.config
        self._alphas = pipeline.scheduler.alphas_cumprod.double().numpy()
        self._clean_alpha = 1.0 if settings.get("set_alpha_to_one", True) else float(self._alphas[0])
        self._steps_offset = int(settings.get("steps_offset", 0))
        self._prediction = str(settings.get("prediction_type", "epsilon"))
        self._scaling = float(pipeline.vae.config.scaling_factor)
        self._prompts: OrderedDict[str, Tensor] = OrderedDict()
        self._table = pipeline.text_encoder.get_input_embeddings()
        self._originals: dict[str, Tensor] = {}
        self.concepts: Concepts | None = None
        size = int(pipeline.unet.config.sample_size)
        self.latent_shape = (int(pipeline.unet.config.in_channels), size, size)
        self.image_size = size * 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
        self.record = BackboneRecord(
            model=model,
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            dtype=str(dtype).removeprefix("torch."),
            attention=kernel,
            attention_reason=reason,
            prediction=self._prediction,
            image_size=self.image_size,
            threads=torch.get_num_threads() if device.type == "cpu" else 0,
            compiled=compile_unet,
        )

    @classmethod
    def load(
        cls,
        model: str,
        dtype: DTypeName = "auto",
        attention: Attention = "auto",
        device: str | None = None,
        lora: str | Path | None = None,
        compile_unet: bool = False,
    ) -> Backbone:
        """Load `model` (embedded name, directory, or hub id) from safetensors alone.

        dtype `auto` is fp16 on CUDA and fp32 on the CPU. `lora` names a safetensors file in any layout diffusers
        reads, the old attention-processor one included; for `compile_unet` see `diffii.compiled`. Raises ModelError
        naming the model or key and the mend.
        """
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        from diffusers import DDIMScheduler, StableDiffusionPipeline
        from diffusers.utils import logging as diffusers_logging
        from transformers.utils import logging as transformers_logging

        for library in (diffusers_logging, transformers_logging):
            library.set_verbosity(logging.CRITICAL)  # what goes wrong is raised, in one line
            library.disable_progress_bar()
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        name = dtype if dtype != "auto" else ("fp16" if where.type == "cuda" else "fp32")
        directory = locate(model)
        try:
            pipeline = StableDiffusionPipeline.from_pretrained(
                directory,
                dtype=_DTYPES[name],
                use_safetensors=True,
                local_files_only=True,
                safety_checker=None,
                feature_extractor=None,
                requires_safety_checker=False,
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ModelError(
                f"backbone.model: {model} does not load as Stable Diffusion 1.x or 2.x from safetensors: "
                f"{one_line(error)}"
            ) from error
        refuse_other_kinds(pipeline, model)
        refuse_incomplete(pipeline, model, directory)
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
        refuse_schedule(pipeline.scheduler, model)
        if lora is not None:
            add_lora(pipeline, Path(lora))
        return cls(pipeline, model, where, _DTYPES[name], attention, compile_unet)

    def grid(self, steps: int, spacing: Spacing) -> Grid:
        """The DDIM grid of this model's own noise schedule."""
        return make_grid(self._alphas, self._clean_alpha, steps, spacing, self._steps_offset)

    def use(self, concepts: Concepts | None) -> None:
        """Put concepts into the resident model in place of those in use; None takes them out.

        The LoRA is fused, so it costs nothing per call. Each weight is computed from a kept copy of the model's own
        (on the CPU), so whatever was used before, the same concepts give the same bits, and None the original ones.
        Raises ModelError when they were learned on a model of another shape; what was in use then still is.
        """
        if concepts is None and self.concepts is None:
            return
        encoder, width = self.pipeline.text_encoder, int(self._table.embedding_dim)
        if concepts is not None and concepts.vectors.shape[1] != width:
            raise ModelError(
                f"the concepts' vectors have {concepts.vectors.shape[1]} numbers, this model's embeddings {width}: "
                f"learn the concepts on {self.record.model}"
            )
        deltas = lora_deltas(self.pipeline, concepts.lora, "of the concepts") if concepts and concepts.lora else {}
        for name in deltas:
            if name not in self._originals:
                self._originals[name] = weight_of(self.pipeline, name).detach().cpu().clone()
        with torch.no_grad():
            for name in self._originals.keys() - deltas.keys():
                weight_of(self.pipeline, name).copy_(self._originals[name])
        fuse(self.pipeline, deltas, self._originals)
        table = self._table
        if concepts is not None:
            table = TokenTable(table, concepts.vectors.to(self.device, table.weight.dtype))
        encoder.set_input_embeddings(table)
        self.concepts = concepts
        self._prompts.clear()

    @torch.inference_mode()
    def prompt(self, text: str) -> Tensor:
        """The embedding (T, D) of one prompt, from the cache after the first time.

        Always encoded alone: with batch mates it could differ in its last bits. Raises ModelError when the prompt
        names a class token that is not in use, or that lies beyond the model's last position.
        """
        if text in self._prompts:
            self._prompts.move_to_end(text)
            return self._prompts[text]
        rows = self.concepts.rows if self.concepts else {}
        ids = torch.tensor([prompt_ids(self.pipeline.tokenizer, text, rows, self._table.num_embeddings)])
        embedding = self.pipeline.text_encoder(ids.to(self.device))[0][0]
        self._prompts[text] = embedding
        if len(self._prompts) > CACHED_PROMPTS:
            self._prompts.popitem(last=False)
        return embedding

    def prompts(self, texts: list[str]) -> Tensor:
        """Embeddings (B, T, D) of a batch of prompts."""
        return torch.stack([self.prompt(text) for text in texts])

    def put(self, x: Tensor) -> Tensor:
        """A copy on the model's device; brought there without waiting for what that is still at.

        A copy even where it is there already: torch.compile takes tensors made outside of inference mode for another
        kind, and would compile once more for the first step.
        """
        if self.device.type == "cpu" or x.device.type != "cpu":
            return x.to(self.device, copy=True)
        return x.pin_memory().to(self.device, non_blocking=True)

    @torch.inference_mode()
    def epsilon(self, x_BCHW: Tensor, timestep: int, alpha: float, text_BTD: Tensor) -> Tensor:
        """The noise the U-Net sees in float32 latents at `timestep`; float32 (B, C, H, W)."""
        t = torch.full((len(x_BCHW),), timestep, device=self.device, dtype=torch.long)
        x = x_BCHW.to(self.dtype)
        # Encoded latents lie in another order in memory than noise, which torch.compile would compile once more for.
        x = x.contiguous() if self.record.compiled else x
        out = self._unet(x, t, encoder_hidden_states=text_BTD, return_dict=False)[0]
        return to_epsilon(out.float(), x_BCHW, alpha, self._prediction)

    @torch.inference_mode()
    def encode(self, images: np.ndarray) -> Tensor:
        """uint8 images (B, S, S, 3) -> float32 latents (B, C, H, W): the posterior mean times the scaling factor."""
        x = self.put(torch.from_numpy(np.ascontiguousarray(images))).permute(0, 3, 1, 2)
        posterior = self.pipeline.vae.encode((x.float() / 127.5 - 1.0).to(self.dtype)).latent_dist
        return posterior.mean.float() * self._scaling

    @torch.inference_mode()
    def decode(self, latents_BCHW: Tensor) -> np.ndarray:
        """float32 latents -> float32 images (B, S, S, 3) in about [0, 1]; not clipped, so that NaN stays visible."""
        scaled = (latents_BCHW / self._scaling).to(self.dtype)
        vae, size = self.pipeline.vae, _slice(len(scaled)) if self.device.type == "cuda" else len(scaled)
        x = torch.cat([vae.decode(part, return_dict=False)[0] for part in scaled.split(size)])
        return cast(np.ndarray, (x.float() / 2.0 + 0.5).permute(0, 2, 3, 1).cpu().numpy())


def _slice(rows: int) -> int:
    """How many latents are decoded at once on a card, where the decoder takes more memory a row than the U-Net.

    All slices of a batch are of one size, or a row's bits would follow from its place (law 5).
    """
    return max(size for size in range(1, DECODED_AT_ONCE + 1) if rows % size == 0)
