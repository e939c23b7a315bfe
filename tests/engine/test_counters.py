"""The counters say what the log says, and both places where they are read say the same."""

from __future__ import annotations

import threading
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from actors.gpu_clock import GpuClock
from diffii.dataset import patience
from diffii.dataset.patience import Meter, Tally, patiently
from diffii.errors import OutputError
from engine.counters import Counted, Counters
from engine.metrics import Mirror, exported
from engine.progress import Actors, Silent
from engine.run import begin
from engine.waves import run_waves
from tests.engine.imaginary_run import a_run, index, maker, packed_here


def test_a_run_is_counted_as_its_log_has_it(tmp_path: Path) -> None:
    run, counters = a_run(str(tmp_path / "out")), Counters()
    begin(run)
    run_waves(run, maker(run, lambda chunks: chunks[::-1]), packed_here, Silent(), index(run), counters)
    history = run.history
    assert history.count("rejected") > 3
    assert history.count("poisoned") > 0
    assert counters.value("diffii_images_total") == history.rows
    assert counters.value("diffii_kept_total") == history.kept
    assert counters.value("diffii_poisoned_total") == history.count("poisoned")
    rejected = {reason: rows for (outcome, reason), rows in history.lost.items() if outcome == "rejected"}
    assert {reason: counters.value("diffii_rejected_total", reason=reason) for reason in rejected} == rejected
    assert counters.value("diffii_chunks_total") == sum(run.plan.chunk_count(wave) for wave in run.waves)
    assert counters.value("diffii_log_version") == history.version
    assert counters.value("diffii_published_bytes_total") == history.bytes
    assert counters.value("diffii_chunks_waiting") == 0
    assert counters.value("diffii_stage_seconds_count", stage="appending") == history.commits
    assert counters.value("diffii_stage_seconds_count", stage="packing") == len(history.shards)
    assert counters.value("diffii_storage_calls_total", by="driver") > history.rows / 3


def test_what_waits_for_the_head_of_the_line_is_seen(tmp_path: Path) -> None:
    run, counters = a_run(str(tmp_path / "out"), expansion__max_attempts=1.0), Counters()
    begin(run)
    seen: list[float] = []

    class Watching(Silent):
        def advance(self, images: int, lost: int = 0) -> None:
            seen.append(counters.value("diffii_chunks_waiting"))

    chunks = run.plan.chunk_count(run.waves[0])
    run_waves(run, maker(run, lambda todo: [*todo[1:], todo[0]]), packed_here, Watching(), None, counters)
    assert seen == list(range(chunks)), "all are made and the first is missing"


def test_retries_of_storage_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSES", (0.0, 0.0))
    meter, answers = Meter(), [OSError("slow down"), OSError("slow down")]

    def call() -> str:
        if answers:
            raise answers.pop()
        return "done"

    assert patiently("a file", True, call) == "done"
    assert meter.read() == Tally(1, 2)
    answers += [OSError("slow down")] * 3
    with pytest.raises(OutputError):
        patiently("a file", True, call)
    assert meter.read() == Tally(1, 2)
    assert meter.read() == Tally()


def test_the_gpus_clock_adds_up_to_the_time_that_passed() -> None:
    began = time.monotonic()
    clock = GpuClock()

    def work() -> None:
        for _ in range(5):
            with clock:
                time.sleep(0.01)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passed, read = time.monotonic() - began, clock.read()
    assert read["busy_seconds"] >= 0.1
    assert read["busy_seconds"] + read["idle_seconds"] <= passed
    assert clock.read() == {"busy_seconds": 0.0, "idle_seconds": 0.0}


def test_the_busy_share_is_that_of_all_actors() -> None:
    counters = Counters()
    assert counters.busy == 1.0
    counters.made({"rows": 64, "busy_seconds": 6.0, "idle_seconds": 1.5})
    counters.made({"rows": 64, "busy_seconds": 3.0, "idle_seconds": 1.5, "reading_seconds": 0.25})
    assert counters.busy == 0.75
    assert counters.value("diffii_stage_seconds_sum", stage="reading") == 0.25


def test_actors_are_counted_beside_being_shown() -> None:
    class Shown(Silent):
        def actors(self, actors: Actors) -> None:
            self.last = actors

    shown, counters = Shown(), Counters()
    Counted(shown, counters).actors(Actors(wanted=4, here=3, ready=2, busy=1))
    assert shown.last.wanted == 4
    states = {state: counters.value("diffii_actors", state=state) for state in ("wanted", "here", "ready", "busy")}
    assert states == {"wanted": 4, "here": 3, "ready": 2, "busy": 1}


def test_a_file_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"--metrics: .*nowhere.* cannot be written: No such file"),
        exported(Counters(), tmp_path / "nowhere" / "file"),
    ):
        raise AssertionError("too late")


def test_ray_is_told_what_was_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray serves is shown by the test below, where its agent is installed."""
    told: list[tuple[str, float, tuple[str, ...]]] = []

    class Metric:
        def __init__(self, name: str, text: str, tag_keys: tuple[str, ...]) -> None:
            self._name = name

        def inc(self, value: float, tags: dict[str, str]) -> None:
            told.append((self._name, value, tuple(tags.values())))

        set = _record = inc

    monkeypatch.setattr("engine.metrics.ray.is_initialized", lambda: True)
    monkeypatch.setattr("engine.metrics.metrics.Counter", Metric)
    monkeypatch.setattr("engine.metrics.metrics.Gauge", type("Gauge", (Metric,), {}))
    counters = Counters()
    mirror = Mirror(counters)
    for rows, idle in ((64, 1.5), (36, 0.5)):
        told.clear()
        counters.made({"rows": rows, "busy_seconds": 2.0, "idle_seconds": idle})
        counters.log_version.set(7)
        mirror.update()
        assert ("diffii_images_total", rows, ()) in told
        assert ("diffii_actor_seconds_total", idle, ("idle",)) in told
        assert ("diffii_log_version", 7, ()) in told
    told.clear()
    mirror.update()
    assert {name for name, _, _ in told} == {
        "diffii_log_version",
        "diffii_chunks_waiting",
        "diffii_actors",
        "diffii_busy_share",
        "diffii_capacity_wait_seconds",
        "diffii_stage_done",
        "diffii_stage_wanted",
    }


@pytest.mark.slow
def test_rays_own_endpoint_serves_them(ray_here: None) -> None:
    counters = Counters()
    counters.made({"rows": 64, "busy_seconds": 6.0, "idle_seconds": 1.5})
    mirror = Mirror(counters)
    mirror.update()
    counters.made({"rows": 36, "busy_seconds": 3.0, "idle_seconds": 1.5})
    mirror.update()
    node, until, found = ray.nodes()[0], time.monotonic() + 60, dict[Any, float]()
    if find_spec("opentelemetry") is None:
        pytest.skip("only ray[default], which clusters have, serves metrics")
    while ("ray_diffii_images_total", None) not in found and time.monotonic() < until:
        time.sleep(2.0)  # Ray reports every ten
        node = ray.nodes()[0]
        if node["MetricsExportPort"] <= 0:
            continue
        with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics") as page:
            families = list(text_string_to_metric_families(page.read().decode()))
        found = {(s.name, s.labels.get("state")): s.value for family in families for s in family.samples}
    assert found["ray_diffii_images_total", None] == 100
    assert found["ray_diffii_actor_seconds_total", "busy"] == 9
    assert found["ray_diffii_actor_seconds_total", "idle"] == 3
