"""The README's code for expanding from Python runs, with settings that let it end soon."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import diffii
from tests.engine.sources import PLAIN, garments

README = Path(__file__).parents[2] / "README.md"
SOON = {
    **PLAIN,
    "inversion.steps": 4,
    "inversion.micro_batch": 4,
    "generation.steps": 3,
    "generation.micro_batch": 4,
    "expansion.factor": 2,
    "actors.max": 1,
}


@pytest.mark.slow
def test_the_code_for_expanding_runs(tmp_path: Path) -> None:
    garments(tmp_path / "birds", shots=2, classes=2)
    section = README.read_text(encoding="utf-8").partition("From Python it is the same")[2].partition("\nSuffixes")[0]
    code = textwrap.dedent("\n".join(line for line in section.splitlines() if not line or line.startswith("    ")))
    theirs, mine = '"prompts.metaclass": "bird"', json.dumps(SOON)[1:-1]
    assert theirs in code
    done = subprocess.run(
        [sys.executable, "-c", code.replace(theirs, mine)], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert (done.returncode, done.stdout) == (0, "8 images\n"), done.stderr
    assert len(diffii.open(str(tmp_path / "birds-x5"))) == 8
