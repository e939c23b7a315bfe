"""A Ray that is there already: the cluster on whose machine this command runs, as the driver of a job does."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator

import ray
from ray.exceptions import AuthenticationError

from cluster.authentication import demand_token
from cluster.ending import heed_sigterm
from cluster.local import hide_reports, stderr_closed
from diffii.errors import ClusterError

KNOCK_SECONDS = 20.0


@contextlib.contextmanager
def joined_ray(verbose: bool = False) -> Iterator[None]:
    """Be a driver of the cluster that `RAY_ADDRESS` names, or else of the one whose machine this is; it stays.

    Raises ClusterError when there is none, or when it does not know our token.
    """
    address = os.environ.get("RAY_ADDRESS", "auto")
    if address.startswith("ray://"):
        raise ClusterError(
            f"RAY_ADDRESS={address}: Ray Client does not carry a run; submit it as a job: diffii cluster submit"
        )
    demand_token()
    if not verbose:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        _knock(address)
        with contextlib.nullcontext() if verbose else stderr_closed():
            ray.init(
                address="auto",
                log_to_driver=verbose,
                logging_level=logging.INFO if verbose else logging.ERROR,
            )
    except OSError as error:
        raise ClusterError(
            f"--address auto: no Ray answers here (RAY_ADDRESS={address}); leave --address out to start one for this "
            "command, or submit the run to a cluster: diffii cluster submit"
        ) from error
    except AuthenticationError as error:
        raise ClusterError("--address auto: the cluster does not know this token; see RAY_AUTH_TOKEN_PATH") from error
    heed_sigterm()
    if not verbose:
        hide_reports()
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raises OSError when nobody listens at `HOST:PORT`; Ray itself would go on asking for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()
