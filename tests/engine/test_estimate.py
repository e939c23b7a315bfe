"""The estimate: what is counted follows from the plan; what is measured is only asked to be there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.estimate import Estimate, Speed, calibrate, estimate
from engine.prepare import prepare
from engine.settings import from_flat
from engine.specs import model_spec
from tests.engine.sources import garments

pytestmark = pytest.mark.slow


def counts(found: Estimate) -> Estimate:
    timed = {"images_per_second": 0.0, "seconds": 0.0, "caption_seconds": 0.0, "learn_seconds": 0.0}
    return replace(found, disk_bytes=0, chunk_seconds=0.0, start_seconds=0.0, **timed)


def test_a_long_tail_and_near_copies_are_counted(tmp_path: Path) -> None:
    source = garments(tmp_path / "source", shots=3, classes=2)
    next((source / "Bag").iterdir()).unlink()
    values = {"source.url": str(source), "expansion.target": "balanced", "expansion.factor": 4, "generation.steps": 5}
    values |= {"inversion.steps": 6, "inversion.micro_batch": 4, "generation.micro_batch": 8, "commit.chunk_size": 20}
    config = from_flat({**values, "dedup.embedder": "lite0", "output.url": str(tmp_path / "out")})
    run = prepare(config)
    found = estimate(config, 2, "cpu", run)
    # Fifteen images each, real ones counted: 12 and 13 rows in chunks of 20 and 5, batches of 8, 8, 4 and 5.
    assert (found.classes, found.real_images, found.synthetic_images, found.chunks) == (2, 5, 25, 2)
    assert found.unet_calls == 2 * 6 + 4 * 5
    assert found.unet_rows == 2 * 6 * 4 + 4 * 5 * 8 * 2
    assert found.seconds > 0 and found.disk_bytes > 0
    assert counts(estimate(config, 2, "cpu")) == counts(found), "the same without the run at hand"

    measured = calibrate(model_spec(run.config), run.config, 1)
    assert all(getattr(measured, name) > 0 for name in Speed.__dataclass_fields__)
    without = from_flat({**values, "dedup.embedder": "off"})
    assert calibrate(model_spec(run.config), without, 1).sign_image == 0
