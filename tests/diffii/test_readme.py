"""The README's code for training runs as it stands."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

import diffii
from tests.diffii.pictured import expand_pictured

README = Path(__file__).parents[2] / "README.md"


def test_the_code_for_training_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expand_pictured(str(tmp_path / "birds-x5"), expansion__factor=20.0)
    section = README.read_text(encoding="utf-8").partition("## Train on it\n")[2].partition("\n## ")[0]
    code = textwrap.dedent("\n".join(line for line in section.splitlines() if not line or line.startswith("    ")))
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(compile(code, str(README), "exec"), found)
    rows = len(diffii.open("./birds-x5"))
    assert found["step"] == -(-rows // 64) > 1 and found["images"].shape[1:] == (3, 8, 8)
    assert found["state"]["epoch"] == 1 and list(found["batches"]) == [], "resumed at its very end"
    assert found["place"]["rows"] == rows
