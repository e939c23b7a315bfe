"""Which attention kernel a U-Net runs on: asked for, probed, then used, and said in the record."""

from __future__ import annotations

from typing import Any, Literal

import torch

from diffii.errors import ModelError
from diffii.kinds import Attention

Kernel = Literal["xformers", "sdpa"]


def use(unet: Any, requested: Attention, device: torch.device, dtype: torch.dtype) -> tuple[Kernel, str]:
    """Put the kernel into a U-Net; which it is and why.

    `auto` takes xformers on CUDA if it answers a probe, else PyTorch's scaled_dot_product_attention.
    Raises ModelError when xformers is demanded and cannot run.
    """
    kernel, reason = choose(requested, device, dtype)
    if kernel == "sdpa":
        return kernel, reason
    try:
        # diffusers asks for itself, in float32, which on some cards has no kernel where float16 has.
        unet.enable_xformers_memory_efficient_attention()
    except (RuntimeError, NotImplementedError, ValueError) as error:
        unet.disable_xformers_memory_efficient_attention()
        return _without(requested, f"diffusers does not take it: {_named(error)}")
    return kernel, reason


def choose(requested: Attention, device: torch.device, dtype: torch.dtype = torch.float16) -> tuple[Kernel, str]:
    """The kernel to use and why, without a model; as `use`."""
    if requested == "sdpa":
        return "sdpa", "as configured"
    if device.type != "cuda":
        if requested == "xformers":
            raise ModelError(
                "backbone.attention: xformers has no kernels for the CPU; set backbone.attention=sdpa or auto."
            )
        return "sdpa", "xformers has no kernels for the CPU"
    trouble = probe_xformers(device, dtype)
    return ("xformers", "answered the probe") if trouble is None else _without(requested, trouble)


def _without(requested: Attention, trouble: str) -> tuple[Kernel, str]:
    if requested == "xformers":
        raise ModelError(
            f"backbone.attention: xformers does not work on this GPU ({trouble}). "
            "Install the build for this torch and CUDA (pip install 'diffii[gpu]'), or set backbone.attention=auto."
        )
    return "sdpa", f"xformers does not work here: {trouble}"


def probe_xformers(device: torch.device, dtype: torch.dtype = torch.float16) -> str | None:
    """Run xformers on Stable Diffusion's own shapes; None when it agrees with SDPA, else what went wrong."""
    try:
        from xformers.ops import memory_efficient_attention  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError) as error:
        return _named(error)
    # (tokens of the latent, tokens attended to, heads, head size): self and cross-attention of SD-1.5 at 512 px.
    for queries, keys, heads, size in ((4096, 4096, 8, 40), (4096, 77, 8, 40), (64, 64, 8, 160)):
        q = torch.randn(2, queries, heads, size, device=device, dtype=dtype)
        k, v = (torch.randn(2, keys, heads, size, device=device, dtype=dtype) for _ in range(2))
        try:
            got = memory_efficient_attention(q, k, v)
        except (RuntimeError, NotImplementedError, ValueError) as error:
            return _named(error)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        want = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        difference = float((got.transpose(1, 2) - want).abs().max())
        if not difference < 2e-2:
            return f"its result differs from SDPA by {difference:.3f} at {queries}x{keys}"
    return None


def _named(error: Exception) -> str:
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
