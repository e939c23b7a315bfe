"""Run the command line as a user does, in processes of its own; and kill one at a chosen moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.engine.sources import PLAIN

FEW_STEPS = [
    "--set=inversion.steps=4",
    "--set=inversion.micro_batch=4",
    "--set=generation.steps=3",
    "--set=generation.micro_batch=4",
    "--set=commit.chunk_size=4",
    "--set=output.shard_rows=8",
    # Each actor is a process that spends some eight seconds of a core on its imports before its first image.
    "--set=actors.max=1",
]
SMALL = [*FEW_STEPS, *(f"--set={key}={json.dumps(value)}" for key, value in PLAIN.items())]


def diffii(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "cluster.cli", *map(str, arguments)]


def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(diffii(*arguments), capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == code, done.stderr
    return done


def kill_when(command: list[str], sign: Callable[[], bool]) -> None:
    """Start a command, SIGKILL it once `sign` is true, and wait until its Ray's workers are gone with it."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        deadline = time.monotonic() + 300
        while not sign():
            if process.poll() is not None:
                said.seek(0)
                raise AssertionError(f"it ended before it could be killed: {said.read().decode()[-3000:]}")
            assert time.monotonic() < deadline
            time.sleep(0.02)
        family = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    psutil.wait_procs([child for child in family if "ray::" in " ".join(_command(child))], timeout=20)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
