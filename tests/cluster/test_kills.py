"""Drivers and actors that are killed at random moments change nothing: `python -m tests.cluster.chaos` does more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.chaos import chaos


@pytest.mark.slow
def test_random_kills_change_nothing(tmp_path: Path) -> None:
    """Four actors against a quiet run of two, with near-copies among the rows."""
    extra = ["--set=dedup.embedder=lite0"]
    tally = chaos(tmp_path, drivers=2, actors=2, seed=4, pool=4, factor=15, extra=extra)
    assert (tally.driver_kills, tally.actor_kills) == (2, 2)
    assert (tally.digest_equal, tally.shards_digest_equal, tally.problems) == (True, True, [])
    assert tally.versions_read >= 3
