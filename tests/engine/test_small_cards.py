"""Two kinds of card in one run, one of them too small for the micro-batch: exactly once, and said to differ."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

import diffii
from actors.generator import Generator
from diffii.dataset import layout
from engine import expand as expansion
from engine.reproducible import why_not
from engine.settings import from_flat
from engine.status import status
from engine.verify import verify
from tests.engine.sources import PLAIN, garments

SETTINGS: dict[str, Any] = {
    **PLAIN,
    "inversion.steps": 4,
    "inversion.micro_batch": 4,
    "generation.steps": 3,
    "generation.micro_batch": 4,
    "commit.chunk_size": 4,
    "output.shard_rows": 8,
    "expansion.factor": 6,
}
ROOM = 2
SMALL, LARGE = f"{layout.OWN}/small-card", f"{layout.OWN}/large-card"


class TwoCards(Generator):
    """The first actor to come has a card with room for two rows, every other a large one; both are put to work."""

    def _card(self) -> str:
        me = ray.get_runtime_context().get_actor_id() or ""
        self._storage.put_once(SMALL, me.encode())
        # An actor that starts anew is on the same card.
        self._small = self._storage.read(SMALL) == me.encode()
        return "a small card" if self._small else "a large card"

    def _model(self, rows: list[dict[str, Any]], starts: list[Any], batch: list[int]) -> np.ndarray:
        if self._small and len(batch) > ROOM:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        mine, other = (f"{SMALL}-works", f"{LARGE}-works") if self._small else (f"{LARGE}-works", f"{SMALL}-works")
        self._storage.put_once(mine, b"")
        deadline = time.monotonic() + 300
        while self._storage.read_or_none(other) is None:
            assert time.monotonic() < deadline, "the other card does not work"
            time.sleep(0.05)
        return super()._model(rows, starts, batch)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return garments(tmp_path_factory.mktemp("source"), shots=2)


def expand(source: Path, out: Path, **more: Any) -> None:
    values = {key.replace("__", "."): value for key, value in more.items()}
    expansion.expand(from_flat({**SETTINGS, "source.url": str(source), "output.url": str(out), **values}))


def ids(out: Path) -> list[str]:
    return diffii.open(str(out)).column("sample_id").to_pylist()


@pytest.mark.slow
def test_a_small_card_takes_fewer_rows_and_the_data_set_says_so(
    source: Path, tmp_path: Path, ray_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet, mixed = tmp_path / "quiet", tmp_path / "mixed"
    expand(source, quiet, actors__max=1)
    monkeypatch.setattr(expansion, "Generator", TwoCards)
    expand(source, mixed, actors__max=2, actors__allow_smaller_batch=True)
    found, expected = verify(str(mixed)), verify(str(quiet))
    assert (found.problems, found.kept) == ([], expected.kept)
    assert ids(mixed) == ids(quiet)
    assert not found.reproducible
    assert "in different micro-batches (2 and 4 rows)" in found.not_reproducible
    assert status(str(mixed)).not_reproducible == found.not_reproducible
    assert expected.reproducible
    assert not expected.not_reproducible


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("NVIDIA L4 float16", "NVIDIA A100-SXM4-40GB float16", "kinds of device (NVIDIA A100-SXM4-40GB and NVIDIA L4)"),
        ("cpu float32", "cpu float16", "different arithmetic (float16 and float32)"),
    ],
)
def test_why_not_names_what_differs(first: str, second: str, told: str) -> None:
    rest = "sdpa threads-1 concepts-1a torch-2.13.0+cpu batch-16 embedder-lite0"
    found = why_not({f"{first} {rest}", f"{second} {rest}"})
    assert found.startswith(f"chunks were made {'by' if 'device' in told else 'in'} ")
    assert told in found
    assert found.count("(") == 1


def test_why_not_tells_several_things_apart() -> None:
    one = "cpu float32 sdpa threads-1 torch-2.11.0 numpy-2.4.6 batch-8"
    assert why_not({one}) == why_not(set()) == ""
    found = why_not({one, "cpu float32 sdpa compiled threads-2 torch-2.13.0 numpy-2.4.6 batch-16"})
    for told in (
        "(8 and 16 rows)",
        "kernels (sdpa and sdpa compiled)",
        "threads (1 and 2)",
        "of torch (2.11.0 and 2.13",
    ):
        assert told in found
    assert "numpy" not in found
