"""Real trouble changes nothing: one run each; `python -m tests.chaos` does more."""

from __future__ import annotations

import os

import pytest

from tests.chaos.scenarios import TROUBLES, Place, Tally, endure

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("chaos"), drivers=1, actors=1)


def happened(tally: Tally) -> list[str]:
    counts = ("driver_kills", "actor_kills", "nodes_removed", "nodes_drained", "out_of_memory", "disk_full")
    return [name for name in (*counts, "storage_failures") if getattr(tally, name)]


EXPECTED = {
    "kills": ["driver_kills", "actor_kills"],
    "memory": ["out_of_memory"],
    "disk": ["disk_full"],
    "nodes": ["nodes_removed", "nodes_drained"],
    "storage": ["driver_kills", "actor_kills", "storage_failures"],
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_changes_nothing(place: Place, trouble: str) -> None:
    if trouble == "disk" and os.geteuid():
        pytest.skip("a small disk needs the right to mount one")
    tally = endure(place, trouble, seed=1)
    assert happened(tally) == EXPECTED[trouble], tally
    assert tally.ok, tally
    assert tally.versions_read >= 3, tally
    assert tally.poisoned == 3
