"""What Stable Diffusion 1.5 costs on this machine: loading, attention kernels, images a second. One JSON object.

The architecture is exact and the weights are random: time and memory depend on shapes, not on what was learned.
Run it with `tests/bench/gpu.sh`, or `python -m tests.bench.gpu` where everything is installed.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from diffii.attention import probe_xformers
from diffii.backbone import Backbone
from diffii.denoise import denoise
from diffii.invert import invert
from diffii.kinds import Attention
from diffii.weights import EMBEDDED

PROMPT, SUFFIX = "a photo of a bird", "a photo of a bird flying over water"
SDPA = {
    "sdpa: torch's choice": None,
    "sdpa: flash": SDPBackend.FLASH_ATTENTION,
    "sdpa: cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa: efficient": SDPBackend.EFFICIENT_ATTENTION,
}
PACKAGES = ("torch", "triton", "xformers", "diffusers", "transformers", "peft", "safetensors", "numpy")
GIB = 2**30


def main(arguments: list[str] | None = None) -> int:
    """0 when all sections ran, 2 when there is no card to measure; a section that fails leaves the earlier figures."""
    options = _options(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("bench: torch sees no CUDA card here; --device cpu --tiny proves that the code runs.", file=sys.stderr)
        return 2
    device = torch.device(options.device)
    deadline = time.monotonic() + options.seconds
    report: dict[str, Any] = {
        "complete": False,
        "measured_on": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, not a GPU",
        "meaning": "GPU figures"
        if device.type == "cuda"
        else "CPU figures: every line runs; they say nothing of a GPU",
        "command": " ".join(["python -m tests.bench.gpu", *(sys.argv[1:] if arguments is None else arguments)]),
        "environment": environment(device),
    }
    with tempfile.TemporaryDirectory(prefix="diffii-bench-") as scratch:
        path = Path(scratch) / "model"
        report["load"] = _said(options, report, "load", lambda: load_times(path, options.tiny, device))
        report["attention"] = _said(options, report, "attention", lambda: attention_times(device, options.tiny))
        model = EMBEDDED if options.tiny else str(path)
        kernels: list[Attention] = ["sdpa", *(["xformers"] if report["attention"]["xformers_probe"] == "ok" else [])]
        report["images"] = []
        for kernel in kernels:
            _free(device)
            backbone = Backbone.load(model, "auto", kernel, options.device)
            for micro_batch in options.micro_batches:
                name = f"{kernel}, micro-batch {micro_batch}"
                row = _said(options, report, name, lambda b=backbone, m=micro_batch: images(b, m, options, deadline))
                report["images"].append({"attention": kernel, "micro_batch": micro_batch, **row})
                if "skipped" in row:
                    break  # a larger one needs more of the same
            del backbone
    report["complete"] = True
    _write(options, report)
    print(json.dumps(report, indent=2))
    return 0


def environment(device: torch.device) -> dict[str, Any]:
    found: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform(), "packages": {}}
    for name in PACKAGES:
        try:
            found["packages"][name] = version(name)
        except PackageNotFoundError:
            found["packages"][name] = None
    if device.type != "cuda":
        return {**found, "threads": torch.get_num_threads()}
    card = torch.cuda.get_device_properties(device)
    return {
        **found,
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "capability": f"{card.major}.{card.minor}",
        "memory_gib": round(card.total_memory / GIB, 2),
        "multiprocessors": card.multi_processor_count,
    }


def load_times(path: Path, tiny: bool, device: torch.device) -> dict[str, Any]:
    """Write random weights to `path` in float16 and load them as any user's model: safetensors to the device."""
    # Here, not above: it imports diffusers, which takes seconds and talks; no card is said before.
    from tests.diffii.stable_diffusion import SMALL, STABLE_DIFFUSION_1_5, build

    start = time.perf_counter()
    build(path, SMALL if tiny else STABLE_DIFFUSION_1_5, dtype=torch.float16)
    built = time.perf_counter()
    backbone = Backbone.load(str(path), "auto", "auto", str(device))
    backbone.prompt(PROMPT)  # its answer waits for the device
    _wait(device)
    loaded = time.perf_counter()
    size = sum(file.stat().st_size for file in path.rglob("*.safetensors"))
    return {
        "record": {**vars(backbone.record), "model": "random weights"},
        "weights_gib": round(size / GIB, 3),
        "build_s": round(built - start, 2),
        "load_s": round(loaded - built, 2),
        "memory_gib": _memory(device),
    }


def attention_times(device: torch.device, tiny: bool) -> dict[str, Any]:
    """Every attention of the U-Net at 512 px, by every kernel; rows = a micro-batch of 4 with guidance."""
    trouble = probe_xformers(device)
    rows, side = (2, 16) if tiny else (8, 64)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    shapes: list[dict[str, Any]] = []
    for level, head in enumerate((40, 80, 160, 160)):
        queries = (side >> level) ** 2
        for keys in (queries, 77):
            q, k, v = (torch.randn(rows, 8, n, head, device=device, dtype=dtype) for n in (queries, keys, keys))
            exact = scaled_dot_product_attention(q[:1].float(), k[:1].float(), v[:1].float())
            times: dict[str, Any] = {}
            for name, backend in SDPA.items():
                times[name] = _attention(device, exact, lambda b=backend, x=(q, k, v): _sdpa(b, *x))
            if trouble is None:
                q, k, v = (x.transpose(1, 2).contiguous() for x in (q, k, v))
                times["xformers"] = _attention(device, exact, lambda x=(q, k, v): _xformers(*x))
            shapes.append({"rows": rows, "heads": 8, "queries": queries, "keys": keys, "head": head, "kernels": times})
    return {"dtype": str(dtype), "xformers_probe": trouble or "ok", "shapes": shapes}


def _attention(device: torch.device, exact: torch.Tensor, call: Callable[[], torch.Tensor]) -> dict[str, Any]:
    try:
        difference = float((call()[:1].float() - exact).abs().max())
    except (RuntimeError, NotImplementedError, ValueError) as error:
        return {"refused": str(error).partition("\n")[0]}
    # One call is shorter than what starting it costs; many in a row keep the card busy.
    inner = 20 if device.type == "cuda" else 1
    taken = timed(device, lambda: [call() for _ in range(inner)], repeats=5)
    return {"ms": round(statistics.median(taken) / inner, 5), "max_difference": round(difference, 5)}


def _sdpa(backend: SDPBackend | None, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    if backend is None:
        return scaled_dot_product_attention(q, k, v)
    with sdpa_kernel(backend):
        return scaled_dot_product_attention(q, k, v)


def _xformers(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    from xformers.ops import memory_efficient_attention  # pyright: ignore[reportMissingImports]

    return memory_efficient_attention(q, k, v).transpose(1, 2)


def images(backbone: Backbone, micro_batch: int, options: argparse.Namespace, deadline: float) -> dict[str, Any]:
    """Inversion, guided denoising and the VAE at one micro-batch; says so when memory or time does not allow it."""
    try:
        return _images(backbone, micro_batch, options, deadline)
    except torch.OutOfMemoryError:
        return {"skipped": "out of memory"}
    finally:
        _free(backbone.device)


@torch.inference_mode()
def _images(backbone: Backbone, rows: int, options: argparse.Namespace, deadline: float) -> dict[str, Any]:
    device = backbone.device
    if time.monotonic() > deadline:
        return {"skipped": "no time left"}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    grid, short = backbone.grid(options.steps, "matched"), backbone.grid(1, "matched")
    plain, suffix = [PROMPT] * rows, [SUFFIX] * rows
    noise = torch.randn(rows, *backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    size = backbone.image_size
    pictures = np.random.default_rng(0).integers(0, 256, (rows, size, size, 3), dtype=np.uint8)

    def sample(on: Any) -> torch.Tensor:
        return denoise(backbone, noise, plain, suffix, on, 0.3, 7.5)

    step = statistics.median(timed(device, lambda: sample(short), repeats=3))
    # A repeat is sampling, inversion at half its rows, and a little VAE. Half of the time is left to larger batches.
    repeats = min(5, int((deadline - time.monotonic()) / 2 / (step / 1000 * options.steps * 1.7)))
    if repeats < 1:
        return {"skipped": "no time left", "guided_step_ms": round(step, 3)}
    sampled = timed(device, lambda: sample(grid), repeats, warm=lambda: sample(short))
    climb = timed(
        device,
        lambda: invert(backbone, noise, plain, grid),
        repeats,
        warm=lambda: invert(backbone, noise, plain, short),
    )
    latents = sample(short)
    decoded = timed(device, lambda: backbone.decode(latents), repeats)
    encoded = timed(device, lambda: backbone.encode(pictures), repeats)
    sampling, inversion, decode, encode = (statistics.median(x) / 1000 for x in (sampled, climb, decoded, encoded))
    return {
        "image_size": size,
        "steps": options.steps,
        "guidance": 7.5,
        "dtype": backbone.record.dtype,
        "repeats": repeats,
        "guided_step_ms": round(step, 3),
        "denoise_s": [round(ms / 1000, 4) for ms in sampled],
        "images_per_s": round(rows / sampling, 4),
        "images_per_s_with_decode": round(rows / (sampling + decode), 4),
        "inversion_rows_per_s": round(rows / inversion, 4),
        "inversion_rows_per_s_with_encode": round(rows / (inversion + encode), 4),
        "decode_ms_per_image": round(decode / rows * 1000, 3),
        "encode_ms_per_image": round(encode / rows * 1000, 3),
        "peak_memory_gib": _memory(device),
        "finite": bool(latents.isfinite().all()) and bool(np.isfinite(backbone.decode(latents)).all()),
    }


def timed(
    device: torch.device, call: Callable[[], object], repeats: int, warm: Callable[[], object] | None = None
) -> list[float]:
    """Milliseconds of each of `repeats` calls, after one of `warm` (else of `call`) that is not counted."""
    (warm or call)()
    _wait(device)
    taken: list[float] = []
    for _ in range(repeats):
        if device.type == "cuda":
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            call()
            end.record()
            end.synchronize()
            taken.append(start.elapsed_time(end))
        else:
            began = time.perf_counter()
            call()
            taken.append((time.perf_counter() - began) * 1000)
    return taken


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _free(device: torch.device) -> None:
    """Let go of the last model (its modules refer to each other), so that its memory is not counted again."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _memory(device: torch.device) -> float | None:
    return round(torch.cuda.max_memory_allocated(device) / GIB, 3) if device.type == "cuda" else None


def _driver() -> str | None:
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[0].strip()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None


def _said(options: argparse.Namespace, report: dict[str, Any], name: str, section: Callable[[], Any]) -> Any:
    """Run a section; keep what was measured before it on disk, because a crash of a kernel takes the process along."""
    _write(options, report)
    print(f"bench: {name} ...", file=sys.stderr, flush=True)
    return section()


def _write(options: argparse.Namespace, report: dict[str, Any]) -> None:
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the small model that ships with diffii, small shapes")
    parser.add_argument("--out", type=Path, help="also write the JSON object here, as it grows")
    parser.add_argument("--steps", type=int, default=25, help="of sampling and of inversion")
    parser.add_argument(
        "--micro-batches", type=lambda text: [int(n) for n in text.split(",")], default=[1, 4, 8, 16], metavar="1,4,..."
    )
    parser.add_argument("--seconds", type=float, default=400.0, help="begin no measurement that would end later")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
