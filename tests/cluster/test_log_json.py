"""A real run with `--log-json -`: standard error holds lines of JSON, nothing else, and they tell what the log has."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.status import status
from tests.cluster.commands import SMALL, run
from tests.engine.sources import garments
from tests.engine.test_events import lines


@pytest.mark.slow
def test_every_line_of_a_run_is_parsed(tmp_path: Path) -> None:
    source, out = garments(tmp_path / "source", shots=2, classes=2), tmp_path / "out"
    # Real images that are hardly edited are near-copies of themselves.
    edits = ["--set=arm.name=diff-aug", "--set=arm.strength=[0.05]", "--set=generation.steps=20"]
    settings = [*SMALL, *edits, "--set=dedup.embedder=lite0", "--set=expansion.factor=4"]
    found = lines(run("expand", source, out, *settings, "--log-json=-").stderr)
    (name,) = {line["run"] for line in found}
    assert name.startswith("diffii-out-")
    assert (found[0]["event"], found[0]["output"], found[0]["version"]) == ("began", str(out), -1)
    assert (found[-1]["event"], found[-1]["how"]) == ("ended", "done")
    have, events = status(str(out)), Counter(line["event"] for line in found)
    assert events["commit"] and events["chunk"] and events["rejected"] and events["actors"]
    assert [line["stage"] for line in found if line["event"] == "stage"][:2] == ["invert", "generate"]
    commits = [line for line in found if line["event"] == "commit"]
    assert (sum(c["rows"] for c in commits), sum(c["kept"] for c in commits)) == (have.decided, have.kept)
    chunks = [line for line in found if line["event"] == "chunk"]
    assert sum(chunk["rows"] for chunk in chunks) == have.decided
    assert all(chunk["seconds"]["computing"] > 0 for chunk in chunks)
    rejected = [sample_id for line in found if line["event"] == "rejected" for sample_id in line["sample_ids"]]
    assert len(set(rejected)) == len(rejected) == have.rejected > 0
    kept = {row for file in (out / "data").iterdir() for row in pq.read_table(file)["sample_id"].to_pylist()}
    assert len(kept) == have.kept and not kept & set(rejected)


def test_what_fails_before_ray_starts_is_a_line_too(tmp_path: Path) -> None:
    done = run("expand", tmp_path / "nowhere", tmp_path / "out", "--log-json=-", code=2)
    (ended,) = lines(done.stderr)
    assert (ended["event"], ended["how"]) == ("ended", "failed")
    assert "nowhere" in ended["error"]
