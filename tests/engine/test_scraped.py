"""A run at work is scraped as a cluster's operator would: by Prometheus, at the endpoint that Ray serves."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from engine.counters import Counters
from engine.expand import expand
from engine.metrics import served
from engine.progress import Silent
from engine.settings import from_flat
from tests.engine.sources import PLAIN, garments

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("opentelemetry") is None, reason="only ray[default] serves metrics"),
]

NAMES = set(served(Counters()))
HAPPENED = {
    "ray_diffii_images_total",
    "ray_diffii_kept_total",
    "ray_diffii_chunks_total",
    "ray_diffii_log_version",
    "ray_diffii_published_bytes_total",
    "ray_diffii_busy_share",
    "ray_diffii_stage_wanted",
    "ray_diffii_stage_done",
    "ray_diffii_unet_rows_total",
    "ray_diffii_actors",
    "ray_diffii_actor_seconds_total",
    "ray_diffii_stage_seconds_sum_total",
    "ray_diffii_stage_seconds_count_total",
    "ray_diffii_storage_calls_total",
}
"""What has a number other than 0 in an untroubled run that has committed something."""


class Held(Silent):
    """Progress that stops its run at the first commit until it is let go."""

    def __init__(self) -> None:
        self.reached, self.go = threading.Event(), threading.Event()

    def committed(self, rows: int, shard: str | None) -> None:
        self.reached.set()
        self.go.wait(300)


@pytest.fixture(scope="module")
def endpoint(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a node's metrics, with a run in the midst of its work there."""
    folder = tmp_path_factory.mktemp("scraped")
    settings = {
        **PLAIN,
        "source.url": str(garments(folder / "source", shots=2)),
        "output.url": str(folder / "out"),
        "inversion.steps": 4,
        "inversion.micro_batch": 4,
        "generation.steps": 3,
        "generation.micro_batch": 4,
        "commit.chunk_size": 6,
        "output.shard_rows": 12,
        "expansion.factor": 4,
        "actors.max": 1,
    }
    held, runs = Held(), list[Any]()
    thread = threading.Thread(target=lambda: runs.append(expand(from_flat(settings), held)))
    thread.start()
    try:
        assert held.reached.wait(300)
        yield patiently(_address)
    finally:
        held.go.set()
        thread.join(300)
    assert runs[0].complete


def patiently(look: Callable[[], Any]) -> Any:
    """What `look` gives once it does not raise AssertionError: Ray reports every ten seconds."""
    until = time.monotonic() + 90
    while True:
        try:
            return look()
        except AssertionError:
            if time.monotonic() > until:
                raise
        time.sleep(1.0)


def _address() -> str:
    node = ray.nodes()[0]
    assert node["MetricsExportPort"] > 0
    return f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"


def largest(samples: Iterator[tuple[str, float]]) -> dict[str, float]:
    """Of each of our series, whatever its labels."""
    found: dict[str, float] = {}
    for name, value in samples:
        if name in NAMES:
            found[name] = max(value, found.get(name, value))
    return found


def check(found: dict[str, float]) -> None:
    assert found.keys() == NAMES
    assert {name for name, value in found.items() if value} >= HAPPENED


def test_every_metric_has_a_value_at_the_endpoint(endpoint: str) -> None:
    def look() -> dict[str, float]:
        with urllib.request.urlopen(f"http://{endpoint}/metrics") as page:
            families = text_string_to_metric_families(page.read().decode())
            found = largest((sample.name, sample.value) for family in families for sample in family.samples)
        check(found)
        return found

    found = patiently(look)
    assert found["ray_diffii_images_total"] >= found["ray_diffii_kept_total"] >= 12
    # Six rows a chunk make two calls of four, three steps, guided or not.
    assert found["ray_diffii_unet_rows_total"] >= 2 * 4 * 3
    assert found["ray_diffii_actors"] == 1
    assert 0 < found["ray_diffii_busy_share"] <= 1
    assert found["ray_diffii_stage_wanted"] == 32


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="there is no prometheus on PATH")
def test_prometheus_itself_finds_every_metric(endpoint: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        here = f"127.0.0.1:{free.getsockname()[1]}"
    config = tmp_path / "prometheus.yml"
    job = {"job_name": "ray", "scrape_interval": "1s", "static_configs": [{"targets": [endpoint]}]}
    config.write_text(json.dumps({"scrape_configs": [job]}))  # JSON is YAML
    flags = [f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address={here}"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(["prometheus", *flags], stdout=log, stderr=log)

    def ask(query: str) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"http://{here}/api/v1/query?query={urllib.parse.quote(query)}") as page:
            return json.load(page)["data"]["result"]

    def look() -> None:
        try:
            series = ask('{__name__=~"ray_diffii_.*"}')
        except OSError as error:
            raise AssertionError((tmp_path / "log").read_text()) from error
        check(largest((one["metric"]["__name__"], float(one["value"][1])) for one in series))

    try:
        patiently(look)
        assert float(ask("sum(ray_diffii_kept_total)")[0]["value"][1]) >= 12
    finally:
        server.terminate()
        server.wait(30)
