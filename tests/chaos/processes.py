"""Drivers and their actors as processes: started, watched until they generate, and killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from diffii.dataset import layout
from diffii.dataset.storage import Storage

GENERATOR = "Troubled"
"""Part of the process title of Ray's workers that hold one."""
START_SECONDS = 300.0
END_SECONDS = 900.0


class Driver:
    """One `tests.chaos.expand` on its way."""

    def __init__(self, source: Path, out: str, actors: int, settings: list[str], more: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "tests.chaos.expand", str(source), out, str(actors), *settings]
        self._out = Storage(out)
        self._before = self._seen()
        pipe = subprocess.PIPE
        environment = {**os.environ, **more}
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=pipe, text=True, env=environment)

    def generating(self) -> bool:
        """Wait until its actors have begun to stage; False when it ended first, with everything done."""
        deadline = time.monotonic() + START_SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it does not come to generate"
            if self._generators() and self._seen() != self._before:
                return True
            time.sleep(0.05)
        self.finished()
        return False

    def finished(self) -> None:
        """Wait for a good end."""
        code, errors = self.ended()
        assert code == 0, errors[-3000:]

    def ended(self) -> tuple[int, str]:
        """Wait for an end: exit status, and what it said."""
        _, errors = self.process.communicate(timeout=END_SECONDS)
        return self.process.returncode, errors

    def kill_an_actor(self, draw: random.Random) -> int:
        """SIGKILL one of its generators; how many died of it."""
        deadline = time.monotonic() + 120
        while self.process.poll() is None and time.monotonic() < deadline:
            alive = self._generators()
            if alive:
                try:
                    draw.choice(alive).kill()
                    return 1
                except psutil.NoSuchProcess:
                    pass
            time.sleep(0.1)
        return 0

    def kill(self) -> int:
        """SIGKILL it, and wait until its Ray's workers are gone with it; whether it was alive."""
        if self.process.poll() is not None:
            self.finished()
            return 0
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()
        psutil.wait_procs([child for child in family if "ray::" in _title(child)], timeout=30)
        return 1

    def _generators(self) -> list[psutil.Process]:
        try:
            family = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [child for child in family if GENERATOR in _title(child)]

    def _seen(self) -> tuple[int, int]:
        return len(self._out.find(layout.STAGING)), len(self._out.find(layout.LOG))


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
