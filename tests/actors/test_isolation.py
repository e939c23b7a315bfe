"""Bisection over dead processes: simulated, for every size that matters."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.failures import MAX_KILLERS, SILENT_DEATHS, deaths_to_isolate, task_retries
from actors.isolation import Death, blamed, groups


def live(rows: int, micro_batch: int, killers: set[int], cause: str = "") -> list[Death]:
    """Processes one after another until one survives all its tries; the deaths on the way."""
    deaths: list[Death] = []
    while True:
        guilty = blamed(deaths, SILENT_DEATHS)
        tries = [[row for row in group if row not in guilty] for group in groups(rows, deaths, micro_batch)]
        assert sorted(row for group in tries for row in group) == [row for row in range(rows) if row not in guilty]
        fatal = next((group for group in tries if killers & set(group)), None)
        if fatal is None:
            assert set(guilty) == killers
            return deaths
        deaths.append(Death(frozenset(fatal), cause))


@given(st.data())
def test_exactly_the_killers_are_blamed_within_the_bound(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 100))
    micro_batch = data.draw(st.integers(1, 32))
    killers = data.draw(st.sets(st.integers(0, rows - 1), max_size=MAX_KILLERS))
    cause = data.draw(st.sampled_from(["", "the model did not answer for 9 s"]))
    deaths = live(rows, micro_batch, killers, cause)
    assert len(deaths) <= len(killers) * deaths_to_isolate(rows, micro_batch)
    assert len(deaths) < task_retries(rows, micro_batch)


@pytest.mark.parametrize(
    ("rows", "micro_batch", "deaths"), [(64, 16, 6), (64, 64, 7), (16, 16, 5), (6, 4, 4), (1, 1, 4)]
)
def test_what_one_killer_costs(rows: int, micro_batch: int, deaths: int) -> None:
    assert deaths_to_isolate(rows, micro_batch) == deaths
    assert max(len(live(rows, micro_batch, {row})) for row in range(rows)) == deaths


def test_a_known_cause_needs_fewer_deaths() -> None:
    assert len(live(1, 1, {0}, "the model did not answer for 9 s")) == 2


def test_strangers_kills_blame_nobody() -> None:
    """Three kills in a row, each at a random moment of the tries that follow from the ones before."""
    dice = random.Random(7)
    for _ in range(300):
        rows, micro_batch = dice.randint(1, 64), dice.randint(1, 16)
        deaths: list[Death] = []
        for _ in range(SILENT_DEATHS - 1):
            deaths.append(Death(frozenset(dice.choice(groups(rows, deaths, micro_batch)))))
        assert blamed(deaths, SILENT_DEATHS) == {}


def test_deaths_that_a_blamed_row_explains_do_not_count_against_its_mate() -> None:
    together = Death(frozenset({0, 1}))
    deaths = [together, together, together, Death(frozenset({0})), Death(frozenset({1}))]
    assert set(blamed(deaths, SILENT_DEATHS)) == {0}


def test_the_latest_suspects_are_tried_first() -> None:
    everybody = Death(frozenset(range(10)))
    assert groups(10, [], 4) == [list(range(10))]
    assert groups(10, [everybody], 4) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    died = [everybody, Death(frozenset({4, 5, 6, 7}))]
    assert groups(10, died, 4) == [[4, 5], [6, 7], [0, 1, 2, 3], [8, 9]]
