"""Leaving: how an actor's process ends before its time, and what of that is the node's doing, not a row's."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import ray
import torch

from actors import failures

LAST_WORDS_SECONDS = 10.0
"""Time to write down why. Storage may be what hangs, and a cluster that ends a process kills it half a minute later."""


def leave(say: Callable[[], None]) -> NoReturn:
    """Say why, in bounded time, and end the process."""
    words = threading.Thread(target=say, name="last-words", daemon=True)
    words.start()
    words.join(LAST_WORDS_SECONDS)
    failures.leave()


def leave_if_lost(device: torch.device, error: BaseException, say: Callable[[str], None]) -> None:
    """End this process where its CUDA context went with the error: it can compute nothing any more."""
    if failures.device_lost(device):
        cause = failures.describe(error)
        leave(lambda: say(cause))


def on_sigterm(say: Callable[[], None]) -> None:
    """On SIGTERM drop the chunk at once, saying so: another actor makes it, and a spot notice is short.

    Only within a Ray actor, whose constructor runs in the main thread: a test's or a notebook's process is not ours
    to end. Ray's own handler would end it too, without a word, so that the try would count against its rows.
    """
    if not ray_node() or threading.current_thread() is not threading.main_thread():
        return

    def handler(signum: int, frame: FrameType | None) -> None:
        leave(say)

    signal.signal(signal.SIGTERM, handler)


def ray_node() -> str:
    """The Ray node of this actor; empty outside of one."""
    if not ray.is_initialized():
        return ""
    context = ray.get_runtime_context()
    return context.get_node_id() if context.get_actor_id() else ""


def gone_nodes() -> set[str]:
    """The nodes that this cluster had and has lost. A node of another cluster is not known here, and not gone."""
    return {node["NodeID"] for node in ray.nodes() if not node["Alive"]} if ray.is_initialized() else set()
