"""Simulated lives of data sets: `make simulate` runs thousands and prints which places a driver died at."""

from __future__ import annotations

from tests.simulation.many import add, table
from tests.simulation.run import Life, live, simulated

LIVES = 60


def test_whatever_goes_wrong_the_data_set_is_that_of_a_quiet_run() -> None:
    total = Life(-1)
    with simulated():
        for seed in range(LIVES):
            add(total, live(seed))
    assert total.deaths > LIVES and total.fenced > 0 and total.looks > LIVES
    places = {place for place, _, _ in total.crash_points}
    wanted = {"engine/append.py:LogWriter.append", "engine/pack.py:_publish", "engine/commit.py:Committer._append"}
    assert wanted <= places, table(total)
