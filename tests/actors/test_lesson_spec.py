"""What names a job of learning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.actors.test_learner import SETTINGS, spec


def test_a_job_is_named_by_all_that_its_concepts_follow_from(tmp_path: Path) -> None:
    other = spec(tmp_path, replace(SETTINGS, seed=1))
    assert spec(tmp_path).key == spec(tmp_path, workers=2).key != other.key
