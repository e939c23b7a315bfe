"""The engine alone: `python -m tests.bench.engine`; JSON out.

`overhead` is the engine with one actor over the bare batched loop (`tests.bench.engine_overhead`); `pools` are 1 to 64
simulated GPU actors (`tests.bench.engine_pool`). Each part runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from typing import Any


def part(module: str, *arguments: str) -> dict[str, Any]:
    print(f"{module} {' '.join(arguments)}", file=sys.stderr)
    command = [sys.executable, "-m", f"tests.bench.{module}", *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=1600, help="of the overhead; a multiple of 100, 0 leaves it out")
    parser.add_argument("--actors", type=int, nargs="*", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=25, help="chunks of 64 images per actor")
    parser.add_argument("--image-ms", type=float, default=100.0)
    given = parser.parse_args()
    found: dict[str, Any] = {
        "command": " ".join(["python -m tests.bench.engine", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
    }
    if given.images:
        found["overhead"] = part("engine_overhead", "--images", str(given.images))
    pools = ["--rounds", str(given.rounds), "--image-ms", str(given.image_ms)]
    found["pools"] = [part("engine_pool", "--actors", str(actors), *pools) for actors in given.actors]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
