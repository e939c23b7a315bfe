"""Simulated lives of data sets: `make simulate` runs thousands and prints which places a driver died at."""

from __future__ import annotations

from tests.simulation.many import in_processes, table, unhit

LIVES = 10_000


def test_whatever_goes_wrong_the_data_set_is_that_of_a_quiet_run() -> None:
    total, failures = in_processes(range(LIVES))
    assert not failures, failures[0]
    assert total.deaths > LIVES / 2 and total.fenced > LIVES / 20 and total.looks > LIVES
    assert not unhit(total), table(total)
