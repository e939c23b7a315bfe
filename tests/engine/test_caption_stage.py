"""What the caption stage asks for, and what it has asked for already."""

from __future__ import annotations

import json
from pathlib import Path

from diffii.contexts.files import ImageContext
from engine.caption_stage import suffixes_of
from engine.progress import Silent
from engine.run import prepare
from engine.settings import from_flat
from tests.diffii.test_contexts_endpoint import Service, service
from tests.engine.sources import garments

__all__ = ["service"]


def test_a_service_that_costs_money_is_asked_once(tmp_path: Path, service: Service) -> None:
    settings = {
        "source.url": str(garments(tmp_path / "source", shots=1, classes=2)),
        "output.url": str(tmp_path / "out"),
        "captions.condense": "endpoint",
        "captions.endpoint": service.url,
        "captions.endpoint_model": "small",
    }
    service.says(json.dumps(["on a branch"])).says(json.dumps(["over water"]))
    seen = [
        ImageContext(sha256=str(number), caption=f"a bird number {number}", context="here", method="captioner")
        for number in range(3)
    ]
    for _ in range(2):
        assert suffixes_of(prepare(from_flat(settings)), seen, Silent()) == ("on a branch",)
    assert len(service.requests) == 1
    assert suffixes_of(prepare(from_flat(settings)), seen[:2], Silent()) == ("over water",), "other captions"
