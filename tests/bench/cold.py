"""From the start of an actor's process to its first image, part by part: `python -m tests.bench.cold`; JSON out.

Each round is a new process, as a new actor is: Python and its imports, the model from its safetensors, the first
prompt, the first call of the U-Net, and the first whole micro-batch. The page cache is warm from the second round on;
where the first is the machine's first, it shows what reading from disk costs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROUND = """
import json, sys, time
began = float(sys.argv[1])
marks = {"python": time.time()}
import numpy, torch
import actors.generator
from actors.model import ModelSpec, load
from diffii.denoise import denoise
marks["imports"] = time.time()
backbone = load(ModelSpec(model=sys.argv[2], dtype="auto", attention="auto", threads=1))
marks["model"] = time.time()
backbone.prompt("a photo of a bag")
marks["first prompt"] = time.time()
rows = int(sys.argv[3])
noise = torch.randn(rows, *backbone.latent_shape)
text = ["a photo of a bag"] * rows
denoise(backbone, noise, text, text, backbone.grid(1, "matched"), 0.3, 3.0).cpu()
marks["first call"] = time.time()
backbone.decode(denoise(backbone, noise, text, text, backbone.grid(25, "matched"), 0.3, 3.0))
marks["first micro-batch"] = time.time()
spent, before = {}, began
for name, mark in marks.items():
    spent[name], before = mark - before, mark
print(json.dumps({"device": str(backbone.device), **spent}))
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cold", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--stable-diffusion", action="store_true", help="SD-1.5's architecture, not the embedded model")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="diffii-bench-") as folder:
        model = "garments"
        if options.stable_diffusion:
            from tests.diffii.stable_diffusion import STABLE_DIFFUSION_1_5, build

            model = str(build(Path(folder) / "model", STABLE_DIFFUSION_1_5))
        rounds = [_round(model, options.micro_batch) for _ in range(options.rounds)]
    device = rounds[0].pop("device")
    for later in rounds[1:]:
        later.pop("device")
    command = " ".join(["python -m tests.bench.cold", *(sys.argv[1:] if arguments is None else arguments)])
    median = {part: round(statistics.median(one[part] for one in rounds), 3) for part in rounds[0]}
    report = {
        "command": command,
        "device": device,
        "torch": version("torch"),
        "seconds": median | {"in all": round(sum(median.values()), 3)},
        "first_round": {part: round(value, 3) for part, value in rounds[0].items()},
    }
    print(json.dumps(report, indent=1))
    return 0


def _round(model: str, rows: int) -> dict[str, Any]:
    # The shell's clock before the interpreter starts: what it takes to start is part of it.
    code = f'exec "{sys.executable}" -c "$0" "$(date +%s.%N)" "$1" "$2"'
    done = subprocess.run(["sh", "-c", code, ROUND, model, str(rows)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
