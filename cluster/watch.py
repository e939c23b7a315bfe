"""`diffii status --watch`: the status drawn in place on a terminal; in a pipe, a line whenever it has changed."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from cluster.show import output, print_head, print_json, print_status, tell
from engine.status import COMPLETE

WATCH_SECONDS = 4.0
"""Between two looks. Each is some calls of storage, and a driver says how it stands every ten seconds."""


def watch(read: Callable[[], dict[str, Any]], as_json: bool = False) -> None:
    """Show what `read` gives (the fields of an `engine.status.Status`) until it is complete; Ctrl-C ends it quietly."""
    with contextlib.suppress(KeyboardInterrupt):
        if as_json:
            _follow(read, print_json)
        elif output.is_terminal:
            with Live(console=output, auto_refresh=False) as live:
                _follow(read, lambda found: live.update(Text(_page(found)), refresh=True))
        else:
            _follow(read, _Lines().say)


def _follow(read: Callable[[], dict[str, Any]], show: Callable[[dict[str, Any]], None]) -> None:
    while True:
        found = read()
        show(found)
        if found["state"] == COMPLETE:
            return
        time.sleep(WATCH_SECONDS)


def _page(found: dict[str, Any], show: Callable[[dict[str, Any], Console], None] = print_status) -> str:
    page = Console(file=io.StringIO(), width=output.width)
    show(found, page)
    assert isinstance(page.file, io.StringIO)
    return page.file.getvalue()


class _Lines:
    """Says the head of a status when it is another than before."""

    def __init__(self) -> None:
        self._last = ""

    def say(self, found: dict[str, Any]) -> None:
        head = "; ".join(_page(found, print_head).splitlines())
        if head != self._last:
            self._last = head
            tell(head)
