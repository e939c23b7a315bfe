"""Everything that is measured on a card: `python -m tests.bench.card`; a table, and JSON in `--out`.

Each part is a process of its own with what is left of the time, so that a kernel that crashes, a missing package or a
part that takes too long costs that part alone: the reason stands where its figures would. `--device cpu` runs every
part with the model that ships with diffii, to see that it runs; its figures say that they are a CPU's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

PARTS: dict[str, dict[str, list[str]]] = {
    "gpu": {
        "cuda": ["--seconds", "150"],
        "cpu": ["--device", "cpu", "--tiny", "--steps", "2", "--micro-batches", "1,2"],
    },
    "generate": {
        # Compiling has a part of its own; here it would take the time of those that follow.
        "cuda": ["--json", "--device", "cuda", "--rounds", "1", "--classes", "2", "--shots", "2", "--no-compile"],
        "cpu": ["--json", "--rounds", "1", "--classes", "2", "--shots", "1", "--no-compile"],
    },
    "cold": {
        "cuda": ["--stable-diffusion", "--rounds", "2", "--micro-batch", "8"],
        "cpu": ["--rounds", "1", "--micro-batch", "2"],
    },
    "compile": {
        "cuda": ["--device", "cuda", "--rows", "16"],
        "cpu": ["--rows", "2", "--rounds", "2"],
    },
}
"""In the order of their worth: the last one has the least time."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.card", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, help="the JSON object, written anew after each part")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS), metavar="gpu,generate,...")
    parser.add_argument("--seconds", type=float, help="for all of it; default 460, and no limit on a CPU")
    options = parser.parse_args(arguments)
    unknown = set(options.only) - set(PARTS)
    if unknown:
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        print("bench: torch sees no CUDA card here", file=sys.stderr)
        return 2
    seconds = options.seconds or (460.0 if options.device == "cuda" else None)
    end = None if seconds is None else time.monotonic() + seconds
    report: dict[str, Any] = {}
    for name in options.only:
        print(f"bench: {name} ...", file=sys.stderr, flush=True)
        began = time.monotonic()
        report[name] = part(name, PARTS[name][options.device], None if end is None else end - began)
        report[name]["took_s"] = round(time.monotonic() - began, 1)
        if options.out is not None:
            options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for name, found in report.items():
        print("\n".join(f"{name:<10} {what:<44} {value}" for what, value in lines(name, found)))
    return 1 if all("failed" in found for found in report.values()) else 0


def part(name: str, arguments: list[str], seconds: float | None) -> dict[str, Any]:
    """What one benchmark prints, or `failed` with why it did not."""
    command = [sys.executable, "-m", f"tests.bench.{name}", *arguments]
    if seconds is not None and seconds < 1:
        return {"failed": "no time left"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"failed": f"did not end within the {seconds:.0f} s that were left"}
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        return {"failed": said[-1] if said else f"exit status {done.returncode}"}
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        return {"failed": f"printed something else than its figures: {done.stdout[:200]!r}"}
    return found


def lines(name: str, found: dict[str, Any]) -> list[tuple[str, Any]]:
    """The figures of a part that one looks at first."""
    if "failed" in found:
        return [("failed", found["failed"])]
    if name == "generate":
        ratios = [(key, found[key]) for key in ("ours_over_reference", "fast_over_reference", "ours_over_batched")]
        return [*ratios, *((f"images/s, {way}", rate) for way, rate in found["images_per_second"].items())]
    if name == "cold":
        return [(f"s, {what}", value) for what, value in found["seconds"].items()]
    if name == "compile":
        refused = [(f"refused, {way}", why) for way, why in found["refused"].items()]
        return [
            (f"ms a call, {way}", f"{ms} ({found['eager_over'][way]}x)") for way, ms in found["ms"].items()
        ] + refused
    rows = [("measured on", found["measured_on"]), ("s to load the model", found["load"]["load_s"])]
    for one in found["images"]:
        what = f"images/s, {one['attention']}, micro-batch {one['micro_batch']}"
        rows.append((what, one.get("skipped") or one["images_per_s_with_decode"]))
    return rows


if __name__ == "__main__":
    sys.exit(main())
