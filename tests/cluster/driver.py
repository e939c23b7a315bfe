"""`diffii expand` as the driver of a cluster of this machine, watched while it works."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster.commands import SMALL, diffii
from tests.cluster.head import Head

PATIENCE = 600.0
SMALL_RUN = [*SMALL, "--set=expansion.factor=100", "--set=generation.steps=6"]
"""A hundred chunks of four, so that there is time for something to happen."""
ON_GPUS = ["--set=actors.max=2", "--set=actors.gpus=1"]


class Driver:
    """`diffii expand` on the head's machine, with a log."""

    def __init__(self, cluster: Head, log: Path, *arguments: str | Path, **environment: str) -> None:
        self._log = log
        with log.open("w") as said:
            self.process = subprocess.Popen(
                diffii("expand", *arguments, "--address", "auto"),
                env={**cluster.environment, "RAY_ADDRESS": cluster.gcs, **environment},
                stdout=said,
                stderr=said,
            )

    def until(self, sign: Callable[[], bool], what: str) -> None:
        """Wait for something that is to happen while it works."""
        deadline = time.monotonic() + PATIENCE
        while not sign():
            assert self.process.poll() is None, f"it ended before {what}: {self.said}"
            assert time.monotonic() < deadline, f"not within {PATIENCE:.0f} s: {what}: {self.said}"
            time.sleep(0.2)

    def finished(self) -> None:
        assert self.process.wait(PATIENCE) == 0, self.said

    @property
    def said(self) -> str:
        return self._log.read_text()[-3000:]
