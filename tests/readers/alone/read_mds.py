"""Run in an environment with `mosaicml-streaming` alone: print as JSON what its StreamingDataset gives."""

import io
import json
import sys
import tempfile

import numpy as np
import torch
from PIL import Image

# PyPI's torchvision is built for CUDA, and its kernels do not load beside a torch for the CPU; then its import asks for
# these, which nothing here calls.
for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from streaming import StreamingDataset  # noqa: E402 # pyright: ignore[reportMissingImports]

with tempfile.TemporaryDirectory() as local:
    # As from a bucket: shards are fetched, and their hashes checked.
    rows = StreamingDataset(
        remote=sys.argv[1], local=local, shuffle=True, batch_size=4, validate_hash="sha1", num_canonical_nodes=1
    )
    found = []
    for row in rows:
        image = row["image"]
        image = Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image
        pixels = np.asarray(image.convert("RGB")).tobytes().hex()
        assert row["json"]["sample_id"] == row["sample_id"] and row["caption"].startswith("a photo of a")
        found.append([row["sample_id"], row["label"], row["class_name"], bool(row["is_synthetic"]), pixels])
    print(json.dumps(found))
