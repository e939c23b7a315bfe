"""Run in an environment with `megatron-energon` alone: prepare a copy as its card says, and print what is loaded.

Our index of each tar must be the one that energon would write.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from megatron.energon import WorkerConfig, get_loader, get_train_dataset  # pyright: ignore[reportMissingImports]

place = Path(sys.argv[1])
ours = {path: path.read_bytes() for path in sorted(place.glob("*/*.idx"))}
for path in ours:
    path.unlink()
command = next(line.strip() for line in (place / "README.md").read_text().splitlines() if "energon prepare" in line)
subprocess.run(
    f"{Path(sys.executable).parent}/{command}", shell=True, check=True, stdout=subprocess.DEVNULL, timeout=300
)
for path, data in ours.items():
    assert path.read_bytes() == data, f"{path} is another index than energon's"

workers = WorkerConfig(rank=0, world_size=1, num_workers=0)
rows = get_train_dataset(
    str(place),
    batch_size=1,
    shuffle_buffer_size=None,
    max_samples_per_sequence=None,
    worker_config=workers,
    repeat=False,
)
found = []
for batch in get_loader(rows):
    label = int(np.asarray(batch.label).reshape(-1)[0])
    image = (np.asarray(batch.image)[0].transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8)
    found.append([batch.__key__[0].rsplit("/", 1)[-1], label, "", None, image.tobytes().hex()])
print(json.dumps(found))
