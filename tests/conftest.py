"""What several test modules share: no network, and one real local Ray for those that need it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# How long an example takes is no property of the code: on a busy machine any of them is slow.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
# What a shell starts in the background ignores SIGINT and hands that on: commands could not be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["HF_HUB_OFFLINE"] = "1"
# Two threads on two busy cores wait for each other: ten times slower than one.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# By default Ray's workers are nicer by 15 than what starts them: beside anything else they hardly get on.
os.environ.setdefault("RAY_worker_niceness", "0")


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """A real Ray on this machine with room for three CPU actors."""
    from cluster.local import local_ray

    with local_ray(actors=3):
        yield
