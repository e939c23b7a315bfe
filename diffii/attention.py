"""Which attention kernel a U-Net runs on: asked for, probed, then used, and said in the record."""

from __future__ import annotations

from typing import Literal

import torch

from diffii.errors import ModelError
from diffii.kinds import Attention


def choose(requested: Attention, device: torch.device) -> tuple[Literal["xformers", "sdpa"], str]:
    """The kernel to use and why.

    `auto` takes xformers on CUDA if it answers a probe, else PyTorch's scaled_dot_product_attention.
    Raises ModelError when xformers is demanded and cannot run.
    """
    if requested == "sdpa":
        return "sdpa", "as configured"
    if device.type != "cuda":
        if requested == "xformers":
            raise ModelError(
                "backbone.attention: xformers has no kernels for the CPU; set backbone.attention=sdpa or auto."
            )
        return "sdpa", "xformers has no kernels for the CPU"
    trouble = probe_xformers(device)
    if trouble is None:
        return "xformers", "answered the probe"
    if requested == "xformers":
        raise ModelError(
            f"backbone.attention: xformers does not work on this GPU ({trouble}). "
            "Install the build for this torch and CUDA (pip install 'diffii[gpu]'), or set backbone.attention=auto."
        )
    return "sdpa", f"xformers does not work here: {trouble}"


def probe_xformers(device: torch.device) -> str | None:
    """Run xformers on Stable Diffusion's own shapes; None when it agrees with SDPA, else what went wrong."""
    try:
        from xformers.ops import memory_efficient_attention  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    # (tokens of the latent, tokens attended to, heads, head size): self and cross-attention of SD-1.5 at 512 px.
    for queries, keys, heads, size in ((4096, 4096, 8, 40), (4096, 77, 8, 40), (64, 64, 8, 160)):
        q = torch.randn(2, queries, heads, size, device=device, dtype=torch.float16)
        k, v = (torch.randn(2, keys, heads, size, device=device, dtype=torch.float16) for _ in range(2))
        try:
            got = memory_efficient_attention(q, k, v)
        except (RuntimeError, NotImplementedError, ValueError) as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0]}"
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        want = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        difference = float((got.transpose(1, 2) - want).abs().max())
        if not difference < 2e-2:
            return f"its result differs from SDPA by {difference:.3f} at {queries}x{keys}"
    return None
