"""Simulated lives of data sets: `make simulate` runs thousands and prints which places a driver died at."""

from __future__ import annotations

import pytest

from tests.simulation.many import in_processes, table, unhit

EVERYWHERE = 2_500
"""Lives in which a driver has died at each place where one can."""


@pytest.mark.parametrize("lives", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_whatever_goes_wrong_the_data_set_is_that_of_a_quiet_run(lives: int) -> None:
    total, failures = in_processes(range(lives))
    assert not failures, failures[0]
    assert total.deaths > lives / 2 and total.fenced > lives / 20 and total.looks > lives
    assert lives < EVERYWHERE or not unhit(total), table(total)
