"""A Ray of our own on this machine: started quietly, open to this command alone, ended with it."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sys
from collections.abc import Iterator

import ray
from ray._private import worker

from cluster.authentication import read_environment
from cluster.ending import heed_sigterm
from diffii.errors import ClusterError
from diffii.machine import cores

SPARE_CPUS = 2
"""Logical CPUs beyond the actors' own: Ray Data's small tasks must run while every actor is busy."""
OBJECT_STORE_BYTES = 256 * 2**20
"""Only plan rows and receipts pass through it; images never do."""


@contextlib.contextmanager
def local_ray(actors: int | None = None, verbose: bool = False) -> Iterator[None]:
    """Start Ray for one command, with room for `actors` CPU actors (one per core by default). Raises ClusterError."""
    environment = {
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray's servers listen on every interface, and without a token whoever reaches them can run code here. The token
        # lives in the environment of this command and its children; left to itself Ray writes one to the home folder.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # `actors.gpus=0` is to mean it: Ray leaves the cards in sight of what wants none of them.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        **({"DIFFII_VERBOSE": "1"} if verbose else {"RAY_BACKEND_LOG_LEVEL": "fatal"}),
    }
    os.environ.update({key: value for key, value in environment.items() if key not in os.environ})
    read_environment()
    with contextlib.nullcontext() if verbose else stderr_closed(), _starting():
        ray.init(
            # `local`: without it Ray joins any cluster that was ever started on this machine.
            address="local",
            num_cpus=(actors or cores()) + SPARE_CPUS,
            include_dashboard=False,
            log_to_driver=verbose,
            logging_level=logging.INFO if verbose else logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
        )
    heed_sigterm()
    if not verbose:
        hide_reports()
    try:
        yield
    finally:
        with contextlib.nullcontext() if verbose else stderr_closed():
            ray.shutdown()


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Ray has no class of its own for it
        if "timed out during startup" not in str(error):
            raise
        raise ClusterError(
            "Ray did not start within its 30 seconds: this machine is too busy, or short of memory; run the same "
            "command again when it is less so"
        ) from error


def hide_reports() -> None:
    """Keep Ray's own reports of ended processes ("A worker died", "Task failed") off this driver's terminal.

    A thread of the driver prints them to standard output whatever `log_to_driver` says. The switch is the one that
    Ray's debugger uses; progress says in one line what happened (`engine.watch`).
    """
    worker._worker_logs_enabled = False


@contextlib.contextmanager
def stderr_closed() -> Iterator[None]:
    """Send file descriptor 2 to nowhere: Ray's C++ side writes there whatever Python's logging is told."""
    sys.stderr.flush()
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
