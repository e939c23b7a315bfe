"""Imaginary runs whose images are real pictures: squares of a colour of their own."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any
from unittest import mock

from PIL import Image

from engine.progress import Silent
from engine.row import Row
from engine.run import begin
from engine.waves import run_waves
from tests.engine import imaginary_run
from tests.engine.imaginary_run import a_run, packed_here

_made = imaginary_run.make_row


def expand_pictured(url: str, **settings: Any) -> None:
    """Begin the data set at `url`, or go on with it, until it is complete; the red and green of an image are its label
    and ordinal."""
    with mock.patch.object(imaginary_run, "make_row", _with_picture):
        run = a_run(url, **settings)
        begin(run)
        run_waves(run, imaginary_run.maker(run), packed_here, Silent(), None)


def _with_picture(row: Row, copies: bool = True) -> dict[str, Any]:
    record = _made(row, copies)
    return record | {"image": _picture(row.label, row.ordinal)} if record["image"] else record


@lru_cache(1000)
def _picture(label: int, ordinal: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (label, ordinal, 7)).save(buffer, "PNG")
    return buffer.getvalue()
