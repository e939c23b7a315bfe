"""SIGTERM ends a command as Ctrl-C does: batch systems, containers and clouds send it before they take a machine.

So the driver gives up its output, ends its Ray and says that the same command goes on; the next driver need not wait
for its heartbeat to grow old.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Terminated(KeyboardInterrupt):
    """Told to end by SIGTERM. All that tidies up after a KeyboardInterrupt does so after this one."""


def heed_sigterm() -> None:
    """Raise Terminated in the main thread when SIGTERM comes; a second one ends the process at once.

    To be called again once Ray has started: it has a handler of its own, which prints a stack and ends the process.
    """
    # Elsewhere there is no setting handlers; who calls us from a thread of theirs has their own way to end.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise Terminated
