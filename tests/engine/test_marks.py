"""A run that was begun before images were marked goes on without marks, and never with some."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffii.errors import OutputError
from engine.prepare import load_run, refresh
from engine.run import begin
from tests.engine.imaginary_run import a_run


def test_a_log_that_names_no_mark_means_none(tmp_path: Path) -> None:
    begin(older := a_run(str(tmp_path), output__mark=False))
    assert "output.mark" not in older.identity
    found = load_run(str(tmp_path))
    assert not found.config.output.mark and found.identity == older.identity
    refresh(older)
    with pytest.raises(OutputError, match=r"repeat them.*output\.mark: False there, True now"):
        refresh(a_run(str(tmp_path)))


def test_a_new_run_marks_and_says_so(tmp_path: Path) -> None:
    begin(a_run(str(tmp_path)))
    found = load_run(str(tmp_path))
    assert found.config.output.mark and found.identity["output.mark"] is True
    with pytest.raises(OutputError, match=r"output\.mark: True there, False now"):
        refresh(a_run(str(tmp_path), output__mark=False))
