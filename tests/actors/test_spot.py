"""Notices as three clouds give them, over real HTTP; what a notice leads to is in `tests/cluster/test_spot.py`."""

from __future__ import annotations

import json
import socket
import threading
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest

from actors import spot
from actors.spot import Notice, cloud_here, wait_for_notice
from tests.actors.clouds import Cloud, cloud

AT = float(int(time.time()) + 120)
STAMP = datetime.fromtimestamp(AT, UTC)


def event(name: str, kind: str = "Preempt") -> dict[str, object]:
    return {
        "EventId": "602d9444-d2cd-49c7-8624-8643e7171297",
        "EventType": kind,
        "ResourceType": "VirtualMachine",
        "Resources": [name],
        "EventStatus": "Scheduled",
        "NotBefore": format_datetime(STAMP, usegmt=True),
    }


NOTICES = {
    "aws": json.dumps({"action": "terminate", "time": STAMP.strftime("%Y-%m-%dT%H:%M:%SZ")}),
    "gcp": "TRUE",
    "azure": json.dumps([event("another_machine"), event("worker_7")]),
}
NAMES = {"aws": "AWS", "gcp": "GCP", "azure": "Azure"}


@pytest.mark.parametrize("kind", NOTICES)
def test_a_notice_is_heard_once_it_is_given(kind: str) -> None:
    with cloud(kind) as here:
        found: list[Notice | None] = []
        waiting = threading.Thread(target=lambda: found.append(wait_for_notice(here.url, every=0.02)))
        waiting.start()
        _asked(here, 8)
        assert not found
        here.notice = NOTICES[kind]
        waiting.join(20)
    notice = found[0]
    assert notice is not None
    assert notice.cloud == NAMES[kind]
    if kind == "gcp":  # it says that, and not when
        assert 0 < notice.at - time.time() <= 30
    else:
        assert notice.at == AT


def test_azure_tells_of_other_machines_and_of_other_things_too() -> None:
    with cloud("azure") as here:
        here.notice = json.dumps([event("another_machine"), event("worker_7", "Freeze")])
        ask = cloud_here(here.url)
        assert ask is not None
        assert ask() is None


def test_a_recommendation_to_rebalance_is_no_notice() -> None:
    with cloud("aws") as here:
        ask = cloud_here(here.url)
        assert ask is not None
        assert ask() is None


def test_a_service_that_takes_its_time_to_start_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Azure's does, on a machine that has just been made."""
    monkeypatch.setattr(spot, "ANSWER_SECONDS", 0.2)
    with cloud("azure") as here:
        answer, slow = here.answer, iter([0.6] * 5)

        def slowly(*asked: Any) -> Any:
            time.sleep(next(slow, 0.0))
            return answer(*asked)

        monkeypatch.setattr(here, "answer", slowly)
        here.notice = NOTICES["azure"]
        notice = wait_for_notice(here.url, every=0.01)
    assert notice is not None and notice.cloud == "Azure"


def test_what_is_no_cloud_is_asked_once() -> None:
    with cloud("stranger") as here:
        assert wait_for_notice(here.url, every=0.01) is None
        assert len(here.asked) <= 4
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        assert wait_for_notice(f"http://127.0.0.1:{nobody.getsockname()[1]}", every=0.01) is None


def test_a_cloud_that_falls_silent_for_a_moment_is_asked_again() -> None:
    with cloud("gcp") as here:
        found: list[Notice | None] = []
        waiting = threading.Thread(target=lambda: found.append(wait_for_notice(here.url, every=0.02)))
        waiting.start()
        _asked(here, 4)
        here.kind = "stranger"
        _asked(here, 4)
        here.notice, here.kind = "TRUE", "gcp"
        waiting.join(20)
    assert found[0] is not None


def test_waiting_ends_when_it_is_told_to() -> None:
    over = threading.Event()
    over.set()
    with cloud("gcp") as here:
        assert wait_for_notice(here.url, every=60, over=over) is None


def _asked(here: Cloud, more: int) -> None:
    """Wait until it was asked so many times more."""
    before, deadline = len(here.asked), time.monotonic() + 60
    while len(here.asked) < before + more:
        assert time.monotonic() < deadline
        time.sleep(0.01)
