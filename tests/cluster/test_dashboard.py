"""The dashboard asks for nothing that is not measured, and is what Grafana imports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.cli import app
from cluster.grafana import dashboard
from engine.counters import Counters
from engine.metrics import served

BOARD: dict[str, Any] = json.loads(dashboard())
SERVED = served(Counters())
RAYS_OWN = {"SessionName"}
"""Labels that Ray gives to each series; `tests.engine.test_scraped` sees them come."""
EXPRESSIONS = [(panel["title"], target["expr"]) for panel in BOARD["panels"] for target in panel["targets"]]
SELECTOR = re.compile(r"\b([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}")
FUNCTIONS = {"sum", "min", "max", "rate", "by"}


def bare(expression: str) -> str:
    """An expression without its selectors and its `by (label)`: what is left are functions, numbers and signs."""
    return re.sub(r"by \([a-z_]+\)", "by", SELECTOR.sub("", expression))


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS, ids=[title for title, _ in EXPRESSIONS])
def test_every_query_is_of_metrics_and_labels_that_exist(title: str, expression: str) -> None:
    selected = SELECTOR.findall(expression)
    assert selected
    labels = set(RAYS_OWN)
    for name, matchers in selected:
        assert name in SERVED
        used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert used <= RAYS_OWN | set(SERVED[name])
        labels |= set(SERVED[name])
    assert set(re.findall(r"by \(([^)]*)\)", expression)) <= labels
    assert set(re.findall(r"[a-zA-Z_]\w+", bare(expression))) <= FUNCTIONS, "a metric without a selector"


def test_every_metric_is_shown() -> None:
    asked = {name for _, expression in EXPRESSIONS for name, _ in SELECTOR.findall(expression)}
    assert asked == set(SERVED)


def test_counters_are_asked_for_as_rates_or_sums_and_gauges_never_as_rates() -> None:
    rated = {name for _, expression in EXPRESSIONS for name in re.findall(r"rate\((\w+)", expression)}
    assert rated and all(name.endswith("_total") for name in rated)


def test_grafana_takes_it() -> None:
    assert BOARD["title"] == BOARD["uid"] == "diffii"
    assert BOARD["schemaVersion"] >= 36
    # An id of an installation, and a data source by its own name, would tie it to that one.
    assert "id" not in BOARD and "__inputs" not in BOARD
    variables = {variable["name"]: variable for variable in BOARD["templating"]["list"]}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", variables["session"]["query"]["query"])
    assert asked is not None and asked[1] in SERVED and asked[2] in RAYS_OWN
    named = set(re.findall(r"\$\{?(\w+)", json.dumps(BOARD))) - {"__all"}
    assert named == set(variables)
    source = {"type": "prometheus", "uid": "${datasource}"}
    numbers = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(numbers)) == len(numbers) and min(numbers) > 0
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        assert panel["type"] in ("stat", "timeseries") and panel["title"] and panel["description"]
        assert panel["datasource"] == source
        assert all(target["datasource"] == source for target in panel["targets"])
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24 and not cells & taken, "panels lie on each other"
        taken |= cells


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool on PATH")
def test_prometheus_parses_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"q:{number}", "expr": expr} for number, (_, expr) in enumerate(EXPRESSIONS)]
    file = tmp_path / "rules.json"
    file.write_text(json.dumps({"groups": [{"name": "diffii", "rules": rules}]}))  # JSON is YAML
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


def test_the_command_writes_it(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["cluster", "dashboard", "--to", str(tmp_path / "board.json")])
    assert (done.exit_code, done.output.strip()) == (0, str(tmp_path / "board.json"))
    assert json.loads((tmp_path / "board.json").read_text()) == BOARD
    assert json.loads(CliRunner().invoke(app, ["cluster", "dashboard"]).output) == BOARD
