"""One U-Net call at the one shape that a run has, by every way to run it: `python -m tests.bench.compile`; JSON out.

    eager           as it is loaded
    channels-last   the same with weights and latents in that memory order
    compiled        torch.compile on top of that
    graphs          torch.compile in the mode that replays CUDA graphs (on a card)

Milliseconds of a call, medians taken in turn so that all see the same machine, seconds of the first call (compiling),
and the largest difference from eager. On the CPU it is the embedded model on one thread; `--device cuda` takes Stable
Diffusion 1.5's architecture with random weights in float16.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor
from torch._dynamo.utils import counters

from diffii.backbone import Backbone


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    model = "garments"
    if options.device == "cuda":
        from tests.diffii.stable_diffusion import STABLE_DIFFUSION_1_5, build

        model = str(build(folder / "model", STABLE_DIFFUSION_1_5))
    rows = options.rows
    ways = ["eager", "channels-last", "compiled", *(["graphs"] if options.device == "cuda" else [])]
    calls: dict[str, Callable[[], Tensor]] = {}
    report: dict[str, Any] = {"rows": rows, "first_call_s": {}, "refused": {}, "largest_difference": {}}
    exact: Tensor | None = None
    for way in ways:
        print(f"bench: {way}", file=sys.stderr, flush=True)
        call = _call(way, model, options)
        began = time.perf_counter()
        counters.clear()
        try:
            answer = _waited(call, options.device)
        except (RuntimeError, OSError) as error:  # a compiler may be missing, or refuse: that is a result
            report["refused"][way] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            continue
        report["first_call_s"][way] = round(time.perf_counter() - began, 3)
        # Eager under another name would be a figure, too.
        assert bool(counters["stats"]["unique_graphs"]) == (way in ("compiled", "graphs")), way
        exact = answer.clone() if exact is None else exact
        report["largest_difference"][way] = float((answer - exact).abs().max())
        calls[way] = call
    taken: dict[str, list[float]] = {way: [] for way in calls}
    for _ in range(options.rounds):
        for way, call in calls.items():
            began = time.perf_counter()
            _waited(call, options.device)
            taken[way].append(1e3 * (time.perf_counter() - began))
    medians = {way: statistics.median(times) for way, times in taken.items()}
    report["ms"] = {way: round(value, 3) for way, value in medians.items()}
    report["eager_over"] = {way: round(medians["eager"] / value, 3) for way, value in medians.items()}
    return report


def _call(way: str, model: str, options: argparse.Namespace) -> Callable[[], Tensor]:
    backbone = Backbone.load(model, "auto", options.attention, options.device)
    unet = backbone.pipeline.unet
    if way != "eager":
        unet.to(memory_format=torch.channels_last)
    if way in ("compiled", "graphs"):
        mode = "reduce-overhead" if way == "graphs" else "default"
        # What `epsilon` calls; the pipeline's own stays eager.
        backbone._unet = torch.compile(unet, mode=mode, fullgraph=True, dynamic=False)
    x = torch.randn(options.rows, *backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    x = x.to(backbone.device)
    x = x if way == "eager" else x.contiguous(memory_format=torch.channels_last)
    text = backbone.prompts(["a photo of a bag"] * options.rows)
    grid = backbone.grid(25, "matched")
    return lambda: backbone.epsilon(x, grid.timesteps[12], grid.alphas[12], text)


def _waited(call: Callable[[], Tensor], device: str) -> Tensor:
    answer = call()
    if device == "cuda":
        torch.cuda.synchronize()
    return answer


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.compile", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--attention", choices=("auto", "sdpa", "xformers"), default="auto")
    parser.add_argument("--rows", type=int, default=32, help="rows of a call: twice the micro-batch under guidance")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("bench: torch sees no CUDA card here", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="diffii-bench-") as folder:
        found = measure(options, Path(folder))
    card = torch.cuda.get_device_name() if options.device == "cuda" else "CPU, one thread"
    command = " ".join(["python -m tests.bench.compile", *(sys.argv[1:] if arguments is None else arguments)])
    print(json.dumps({"command": command, "measured_on": card, "torch": version("torch"), **found}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
